"""The Python names of functions that mypyc compiled, from the names of their symbols. Pure.

mypyc writes `exchange.Exchange._judge` as `CPyDef_exchange___Exchange____judge`: dots become three
underscores, and a `___` of the name itself `___3_` (`mypyc/namegen.py`). In front stands what it is (the
function, or its entry for interpreted callers), behind it what the C compiler adds to parts of a function.
Coroutines, generators and lambdas are classes of their own there: what runs in them is told by the function
they are written in.
"""

import re

_SYMBOL = re.compile(
    r"\bCPy(?:Def_|PyDef_|Py_|Dunder_(?:__[a-z]+__|am_send))(\w+)"
    r"(?:\.(?:part|cold|constprop|isra|lto_priv)(?:\.\d+)*)*"
)
_FUNCTION = r"(?P<function>_{0,2}[a-z]\w*?)(?:_(?P<owner>_?[A-Z][A-Za-z0-9]*))?"
_COROUTINE = re.compile(rf"(?P<module>\w+)\.(?:__mypyc___)?{_FUNCTION}_(?:gen|env)(?:[._]\w+)?")
_LAMBDA = re.compile(
    rf"(?P<module>\w+)\.(?:__mypyc___)?_*mypyc_lambda__\d+_{_FUNCTION}_(?:obj|env)(?:[._]\w+)?"
)


def legible(text: str) -> str:
    """The text with every such symbol in Python's words; anything else stays."""
    return _SYMBOL.sub(lambda found: _python_name(found.group(1)), text)


def _python_name(symbol: str) -> str:
    dotted = symbol.replace("___3_", "\0").replace("___", ".").replace("\0", "___")
    for pattern, ending in ((_LAMBDA, ".<lambda>"), (_COROUTINE, "")):
        found = pattern.fullmatch(dotted)
        if found:
            owner = f".{found['owner']}" if found["owner"] else ""
            return f"{found['module']}{owner}.{found['function']}{ending}"
    return dotted


def one_frame_each(stacks: str) -> str:
    """Folded stacks (`flame.py`) with legible names; a function and its entry for interpreted callers become
    one frame.
    """
    return "\n".join(_folded(line) if "CPy" in line else line for line in stacks.splitlines())


def _folded(line: str) -> str:
    stack, _, count = line.rpartition(" ")
    frames: list[str] = []
    for frame in stack.split(";"):
        name = legible(frame)
        if name == frame or frames[-1:] != [name]:
            frames.append(name)
    return f"{';'.join(frames)} {count}"
