"""Valid documents of every kind, for properties."""

from __future__ import annotations

from hypothesis import strategies as st

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,6}", fullmatch=True)
TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
# What one format or another would take for something else than text.
TRAPS = st.sampled_from(
    [
        *("1", "1.0", "1e5", "010", "0x10", "no", "on", "true", "null", "~", "", " ", "12:30", "a: b", "# c"),
        *("\r", "\n a", "\x85", "\u2028"),
    ]
)
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
SCALARS = TEXT | TRAPS | NUMBERS | st.booleans()
LABELS = st.dictionaries(
    NAMES.filter(lambda name: not name.isdecimal()), st.sampled_from(["1", "20"]), max_size=3
)
METADATA = st.dictionaries(st.sampled_from(["x-a", "1"]), TEXT | TRAPS, min_size=1)
RULES = st.fixed_dictionaries({"when": st.fixed_dictionaries({"metadata": METADATA}), "to": st.just("1")})
MODELS = st.fixed_dictionaries(
    {"model": NAMES},
    optional={
        "labels": LABELS,
        "instances": st.lists(
            st.fixed_dictionaries(
                {"runtime": st.just("loopback"), "device": st.just("cpu")},
                optional={
                    "options": st.dictionaries(TEXT | TRAPS, SCALARS, max_size=4),
                    "threads": st.none() | st.integers(1, 9),
                },
            ),
            max_size=1,
        ),
        "batching": st.fixed_dictionaries({}, optional={"batchable": st.sampled_from([True, False, "auto"])}),
        "trace": st.fixed_dictionaries({"ratio": st.sampled_from([0, 1, 0.5, 1.0, None, 1e-07])}),
        "version_policy": st.just({"specific": ["1", "3"]}),
        "traffic": st.fixed_dictionaries(
            {},
            optional={
                "split": st.dictionaries(st.sampled_from(["1", "2"]), st.integers(1, 9), max_size=2),
                "rules": st.lists(RULES, max_size=2),
            },
        ),
    },
)
GATEWAYS = st.fixed_dictionaries(
    {"frozen": st.dictionaries((TEXT | TRAPS).filter(bool), TEXT | TRAPS, max_size=3)},
    optional={"log_level": st.just("debug"), "access": st.sampled_from(["open", "enforce"])},
)
ACCESS = st.fixed_dictionaries(
    {"access": NAMES, "anonymous": st.just(True)},
    optional={"allow": st.lists(st.just({"models": ["*"], "actions": ["infer", "read"]}), max_size=2)},
)
