from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_select.benchmark.metrics.code_blocks import code_blocks

CODE = "def f(x):\n    return x\n"


@pytest.mark.parametrize(
    "response",
    [
        f"```python\n{CODE}```",
        f"```py\n{CODE}```",
        f"```Python3 title=a\n{CODE}```",
        f"Here it is:\n\n```\n{CODE}```\nDone.",
        f"~~~python\n{CODE}~~~",
        f"````python\n{CODE}````",
        "1. So:\n   ```python\n   def f(x):\n       return x\n   ```",
        f"```bash\npip install x\n```\n```python\n{CODE}```",
        f"```\nold output\n```\n```python\n{CODE}```",
        f"[BEGIN]\n```python\n{CODE}```\n[DONE]\n```python\nother = 1\n```",
        f"```python\n{CODE}",
        f"Sure, here you are.\n{CODE}",
    ],
)
def test_the_code_is_found(response):
    assert [block.rstrip("\n") for block in code_blocks(response)] == [CODE.rstrip("\n")]


def test_all_blocks_of_python_count_in_order():
    response = f"```python\nimport math\n```\nand\n```python\n{CODE}```\nruns as\n```\n1\n```"
    assert code_blocks(response) == ["import math\n", CODE]


def test_mbpp_s_marks():
    assert code_blocks(f"text [BEGIN]{CODE}[Done] text") == [CODE]
    assert code_blocks(f"[BEGIN]\n{CODE}") == [CODE]


def test_the_indentation_of_a_continued_program_stays():
    assert code_blocks("    return x\n") == ["    return x"]
    assert code_blocks("```python\n    return x\n```") == ["    return x\n"]


@pytest.mark.parametrize("response", ["", "From the above, define it.", "import it yourself"])
def test_prose_is_left_to_be_no_program(response):
    assert len(code_blocks(response)) == 1


@given(st.text(alphabet=st.sampled_from("`~ \npythondef(x):[BEGIN]"), max_size=200))
def test_any_text_is_taken(response):
    assert code_blocks(response)
