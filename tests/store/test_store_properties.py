"""Any sequence of commits, followed by watches that begin and resume anywhere, against a dict."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_home import Replica, closing, follow_to, following, values

from gateway.config.store.store import Delete, Put, Span

MODELS = Span.folder("models")
KEYS = ["models", "models/", "models/a", "models/a/b", "models/b", "models/é", "models0", "policies/gateway"]
KEY = st.sampled_from(KEYS)


def by_key(writes):
    return list({write.key: write for write in writes}.values())


COMMITS = st.lists(
    st.lists(
        st.one_of(st.builds(Put, KEY, st.binary(max_size=3)), st.builds(Delete, KEY)), min_size=1, max_size=5
    ).map(by_key),
    max_size=12,
)


@pytest.mark.slow
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(commits=COMMITS, resumed=st.sets(st.integers(0, 12), min_size=1, max_size=3))
async def test_watches_that_begin_anywhere_end_at_the_same_state(home, commits, resumed):
    place = home.another()
    model: dict[str, bytes] = {}
    async with place.open() as store, closing(store.watch(MODELS)) as watch:
        replica = Replica()
        replica.apply(await following(watch))
        past = [Replica(dict(replica.values), replica.revision)]
        for writes in commits:
            revision = await store.commit(writes)
            for write in writes:
                if isinstance(write, Put):
                    model[write.key] = write.value
                else:
                    model.pop(write.key, None)
            inside = {key: value for key, value in model.items() if key in MODELS}
            past.append(Replica(inside, revision))
        assert values((await store.read(Span("a", "z"))).entries) == model
        last = await store.commit([Put("models/~", b"end")])
        expected = values((await store.read(MODELS)).entries)
        await follow_to(watch, replica, last)
        assert replica.values == expected
        for state in (past[number % len(past)] for number in resumed):
            async with closing(store.watch(MODELS, after=state.revision)) as late:
                await follow_to(late, state, last)
            assert state.values == expected
