"""Several users in plans: what they add, and where they are refused since they can't be kept apart."""

from __future__ import annotations

import pytest

from sandyard import ConfinementUnavailableError, Group, ManifestError, User
from sandyard.accounts import accounts_of
from sandyard.confinement import plan_session
from sandyard.confinement.footing import Footing
from sandyard.plan import Bind, HostIdentity, Identity, Private, TextFile
from sandyard.policy import Policy
from tests.confinement.hosts import DEBIAN_ROOT, OLD_USER, WORKSPACE, grant
from tests.ladder.hosts import ask

PEOPLE = accounts_of(
    [User(name="reviewer")], [Group(name="team", users=[User(name="agent"), User(name="other")])]
)


def test_plan_has_them() -> None:
    alone = plan_session(Policy(), DEBIAN_ROOT, WORKSPACE, ())
    plan = plan_session(Policy(), DEBIAN_ROOT, WORKSPACE, (), accounts=PEOPLE)
    assert plan.identity == Identity(1000, 1000, HostIdentity.LEASED, further=3)
    more = set(plan.steps) - set(alone.steps)
    written = {step.path: step.content for step in more if isinstance(step, TextFile)}
    assert written["/etc/passwd"].endswith(
        b"reviewer:x:1001:1001:reviewer:/home/reviewer:/bin/bash\n"
        b"other:x:1002:1002:other:/home/other:/bin/bash\n"
    )
    assert written["/etc/group"].endswith(
        b"reviewer:x:1001:\nother:x:1002:\nteam:x:1003:agent,other\n"
    )
    homes = {Private("/home/reviewer", 0o700, 1), Private("/home/other", 0o700, 2)}
    assert more == {*homes, *(step for step in more if isinstance(step, TextFile))}
    assert plan.landlock is not None
    assert alone.landlock is not None
    paths = {rule.path for rule in plan.landlock.rules}
    assert paths - {rule.path for rule in alone.landlock.rules} == {"/home/reviewer", "/home/other"}
    assert plan.seccomp == alone.seccomp


@pytest.mark.parametrize(
    ("facts", "footing", "words"),
    [
        (OLD_USER, Footing(rung="landlock_seccomp", cause="so", fix="do"), "and so"),
        (DEBIAN_ROOT, Footing(rung="landlock_seccomp", cause="so", fix="do"), "and so"),
        (DEBIAN_ROOT, Footing(given=True), "somebody else's"),
    ],
    ids=["ordinary", "bare", "given"],
)
def test_plan_is_refused(facts: object, footing: Footing, words: str) -> None:
    with pytest.raises(ConfinementUnavailableError, match=words) as caught:
        plan_session(Policy(), facts, WORKSPACE, (), footing=footing, accounts=PEOPLE)  # type: ignore[arg-type]
    assert caught.value.context["dimension"] == "processes"


def test_home_is_nobody_elses() -> None:
    policy = Policy(reads=("/home/reviewer",))
    with pytest.raises(ManifestError, match="/home/reviewer") as caught:
        plan_session(policy, DEBIAN_ROOT, WORKSPACE, (grant("/home/reviewer"),), accounts=PEOPLE)
    assert caught.value.context["field"] == "users"
    # Beneath it something may stand.
    inner = "/home/reviewer/project"
    policy = Policy(writes=(inner,))
    given = (grant(inner, writable=True),)
    plan = plan_session(policy, DEBIAN_ROOT, WORKSPACE, given, accounts=PEOPLE)
    places = [step for step in plan.steps if isinstance(step, (Bind, Private))]
    names = [step.path if isinstance(step, Private) else step.target for step in places]
    assert names.index("/home/reviewer") < names.index(inner)


@pytest.mark.root
@pytest.mark.parametrize("how", ["no_user", "container"])
def test_machine_without_namespaces(how: str) -> None:
    told = ask(how, "tests.users.starter")
    assert told["dimension"] == "processes", told
    assert "users and groups can't be made" in str(told["refused"])
