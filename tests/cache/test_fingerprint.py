from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffvqa.cache._errors import FingerprintMismatchError
from diffvqa.cache._fingerprint import Fingerprint

FIELDS = st.dictionaries(st.text(min_size=1), st.one_of(st.integers(), st.text(), st.booleans()), min_size=1)


@given(FIELDS)
def test_digest_depends_on_the_fields_and_not_on_their_order(fields: dict[str, int | str | bool]) -> None:
    backwards = Fingerprint(dict(reversed(fields.items())))
    assert Fingerprint(fields).digest == backwards.digest
    name = next(iter(fields))
    assert Fingerprint({**fields, name: f"not {fields[name]!r}"}).digest != Fingerprint(fields).digest


def test_a_mismatch_names_the_field_both_values_and_the_way_out() -> None:
    stored = Fingerprint({"frames": 8, "seed": 0})
    asked = Fingerprint({"frames": 16, "seed": 0})
    with pytest.raises(FingerprintMismatchError) as caught:
        asked.require_equal(stored, "somewhere", "Use --overwrite.")
    message = str(caught.value)
    assert "frames is 8 there, 16 was asked for" in message
    assert "seed" not in message
    assert "somewhere" in message
    assert message.endswith("Use --overwrite.")


def test_a_field_that_only_one_side_has_is_a_mismatch() -> None:
    with pytest.raises(FingerprintMismatchError, match="grid is \\(absent\\) there, 8 was asked for"):
        Fingerprint({"grid": 8}).require_equal(Fingerprint({}), "cache", "")
