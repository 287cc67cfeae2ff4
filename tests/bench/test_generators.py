import pytest

from bench import generators
from bench.generators import choose
from bench.load import LoadFailed
from crossgate.cli.load import LoadUnavailable


@pytest.fixture
def there(monkeypatch):
    """`there(native=..., h2load=...)` says what is installed."""

    def set_up(native, h2load):
        def check():
            if not native:
                raise LoadUnavailable("cargo was not found")

        monkeypatch.setattr(generators, "check_load_available", check)
        monkeypatch.setattr(generators, "is_available", lambda: native)
        monkeypatch.setattr(generators.shutil, "which", lambda command: command if h2load else None)

    return set_up


@pytest.mark.parametrize(
    ("wanted", "native", "h2load", "chosen"),
    [
        ("auto", True, True, ["native"]),
        ("auto", False, True, ["h2load"]),
        ("native", True, False, ["native"]),
        ("h2load", True, True, ["h2load"]),
        ("both", True, True, ["native", "h2load"]),
    ],
)
def test_the_first_generator_is_the_one_that_counts(there, wanted, native, h2load, chosen):
    there(native, h2load)
    assert [generator.name for generator in choose(wanted)] == chosen


@pytest.mark.parametrize(
    ("wanted", "native", "h2load", "reason"),
    [
        ("auto", False, False, "nghttp2-client"),
        ("native", False, True, "cargo was not found"),
        ("both", True, False, "nghttp2-client"),
    ],
)
def test_a_generator_that_is_not_there_is_named(there, wanted, native, h2load, reason):
    there(native, h2load)
    with pytest.raises(LoadFailed, match=reason):
        choose(wanted)
