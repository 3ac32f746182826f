"""Room: configuration files to frozen settings.

Owns the file format (the replaced system's keys and ours), its validation, the model table and the JSON
Schema. Promises that every problem of every file is reported at once with its place, that prices stay exact
decimals, that a model's price and its upstream id come from the same entry, and that nothing which costs
money is filled in silently. Opens no sockets and never touches the store; secrets are read by one function,
on demand.

`document` is the file as written, `problems` how faults are told, `parts` the rules for endpoints and prices,
`rows` turns model entries into rows, `placement` lets the environment decide what is of the place, `settings`
holds the result, `load` puts it together, `table` shows it, `compare` shows where files differ.
"""

from farebox.config.load import load
from farebox.config.problems import ConfigError, Problem
from farebox.config.settings import Endpoint, ModelRow, ModelTable, Service, Settings

__all__ = ["ConfigError", "Endpoint", "ModelRow", "ModelTable", "Problem", "Service", "Settings", "load"]
