"""Runs blocks of Python one after the other in one namespace, as a notebook does; a process of its own.

Each line of stdin is a block as JSON: ``{"code", "file", "line", "environment"}``. The answer on stdout is a
line of JSON: null, or the traceback. What a block prints goes to stderr.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import os
import sys
import traceback


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr
    namespace = {"__name__": "__main__"}
    with asyncio.Runner() as runner:  # for what is awaited outside of functions
        for line in sys.stdin:
            block = json.loads(line)
            os.environ.update(block["environment"])
            failure = None
            try:
                source = (
                    "\n" * (block["line"] - 1) + block["code"]
                )  # so that tracebacks name lines of the page
                code = compile(source, block["file"], "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
                found = eval(code, namespace)
                if inspect.iscoroutine(found):
                    runner.run(found)
            except BaseException:
                failure = traceback.format_exc()
            print(json.dumps(failure), file=answers, flush=True)


if __name__ == "__main__":
    main()
