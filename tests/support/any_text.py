"""Texts of messages for Hypothesis, which the workers of tests need not load with the rig."""

from __future__ import annotations

from hypothesis import strategies as st

# What JSON can carry: also lone surrogates, which ``st.text`` leaves out.
any_text = st.lists(
    st.text(max_size=20) | st.text(st.characters(categories=["Cs", "Cc", "Cf", "Zs"]), max_size=5),
    max_size=8,
).map("".join)
