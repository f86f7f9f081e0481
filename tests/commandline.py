"""The command line as tests call it, in this process; the fixture `command_line` keeps the caller's settings out."""

from __future__ import annotations

from click.testing import CliRunner, Result

from crossrank.cli import root

try:
    RUNNER = CliRunner(mix_stderr=False)
except TypeError:  # From click 8.2 on they are always apart.
    RUNNER = CliRunner()


def run(*args: object, code: int = 0, stdin: str | bytes | None = None, env: dict[str, str] | None = None) -> Result:
    """What `crossrank ARGS` prints and returns. What it raises and does not tell is raised here."""
    result = RUNNER.invoke(root, [str(arg) for arg in args], input=stdin, prog_name="crossrank", env=env)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, (result.exit_code, result.stdout, result.stderr)
    assert "Traceback" not in result.stderr
    return result
