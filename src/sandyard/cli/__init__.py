"""The command line's front door: ``main``, which ends with an exit code and never a traceback."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import AbstractContextManager, nullcontext

__all__ = ["main"]

_REFUSED = 125
"""The exit code for what is our own doing and not the command's, as ``env`` and ``timeout`` have it."""

_CLI_MISSING = 2
_BROKEN_PIPE = 141
_INTERRUPTED = 130

_PLAIN_WORDS = {
    "Value error, ": "",
    "Input should be a valid number, unable to parse string as a number": "it is no number",
    "Input should be a valid integer, unable to parse string as an integer": "it is no whole number",
    "Input should be": "it has to be",
}


def main() -> None:
    """Run the command line and exit.

    Set ``SANDYARD_TRACEBACK`` to see where an error of our own comes from.
    """
    _fill_standard_streams()
    try:
        code = _run()
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        code = _BROKEN_PIPE
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except Exception as error:  # the border: people get a sentence
        if os.environ.get("SANDYARD_TRACEBACK"):
            raise
        if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:
            _drop_output()
            _say(f"its output can't be written: {error.strerror}")
        else:
            _say(f"internal error: {type(error).__name__}: {error}")
        code = _REFUSED
    sys.exit(code)


def _run() -> int:
    if sys.platform == "win32":  # it lacks modules that every command is made with
        from sandyard.elsewhere import unavailable  # noqa: PLC0415  # it loads the errors

        _say(str(unavailable()))
        return _REFUSED
    try:
        import typer  # noqa: PLC0415  # it may be missing, and costs as much as all the rest
    except ModuleNotFoundError:
        _say("the command line needs typer; install it with: pip install 'sandyard[cli]'")
        return _CLI_MISSING
    from sandyard.cli.app import make_app  # noqa: PLC0415  # it needs typer

    # UsageError: of click, or of the copy of click that newer versions of typer bring.
    usage_error: type[Exception] = typer.BadParameter.__mro__[1]
    try:
        with _answering():
            code = make_app(sys.argv[1:])(prog_name="sandyard", standalone_mode=False)
    except usage_error as error:
        said = getattr(error, "format_message", error.__str__)()
        verb = getattr(getattr(error, "ctx", None), "command_path", "sandyard")
        _say(f"{_plain(said)}\nTry '{verb} --help'.")
        return _REFUSED
    return code if isinstance(code, int) else 0


def _plain(said: str) -> str:
    """What is wrong with the value of an option, without the words of pydantic, which checks them."""
    for theirs, ours in _PLAIN_WORDS.items():
        said = said.replace(theirs, ours)
    return said


def _answering() -> AbstractContextManager[None]:
    """What a shell needs that asks us to complete a word."""
    if "_SANDYARD_COMPLETE" not in os.environ:
        return nullcontext()
    from sandyard.cli.completing import completing_places  # noqa: PLC0415  # seldom needed

    return completing_places()


def _drop_output() -> None:
    """Let what is still in the buffer go nowhere: the interpreter would try once more, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(text: str) -> None:
    print(f"sandyard: {text}", file=sys.stderr)  # noqa: T201  # the command line's own voice


def _fill_standard_streams() -> None:
    """Put /dev/null where a standard stream is closed, before something else gets its number."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
    # The interpreter has None for a stream that was closed.
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # to the end
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
