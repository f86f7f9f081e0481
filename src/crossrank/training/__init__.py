"""Fine-tune a cross-encoder on a few hundred judgments, and keep the base model when the tuned one is not better.

    judgments   rows, groups of one query, grades
    reading     JSONL, CSV, triples, clicks, BEIR folders
    checks      what is wrong with the data, with counts and examples
    folds       which queries are held out together
    words       BM25 over a list of texts (extra `train`)
    negatives   what else a query could be shown: hard, easy, and not likely relevant after all
    general     questions that have nothing to do with the user's, to notice what a model forgets
    settings    how much is trained, by how much there is
    losses      from scores and labels of one query to a number (torch)
    network     the model as torch trains it (torch)
    loop        one training, resumable (torch)
    measuring   a model's values on held-out queries
    gate        is the tuned model better, and what did it forget?
    work        the folder that makes a tuning resumable
    material    queries with their negatives and folds
    prepared    the same with scores and token ids (torch)
    trainings   all trainings, and the verdict on them (torch)
    outcome     what is said meanwhile and at the end
    card        README.md of the tuned folder
    tuning      all of it: `tune` (torch)
    calibrating probabilities that fit the judgments
    grading     grades from a chat model

Nothing here needs torch but the six that say so, and `import crossrank.training` loads none of them.
"""
