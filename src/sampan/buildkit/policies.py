"""Source policies as clients send them, and images found under one."""

from __future__ import annotations

from dataclasses import dataclass

from sampan.build.executor import Executor, Output, RunRequest
from sampan.build.sourcepolicy import Action, Rule, SourcePolicy
from sampan.buildkit.protocol import policy_pb2 as policy
from sampan.errors import InvalidParameter, Unsupported
from sampan.image import Image
from sampan.model.platform import Platform

_ACTIONS = {
    policy.ALLOW: Action.ALLOW,
    policy.DENY: Action.DENY,
    policy.CONVERT: Action.CONVERT,
}


def source_policy(message: policy.Policy) -> SourcePolicy:
    """The rules of a message. Raises InvalidParameter, Unsupported naming what is not done."""
    return SourcePolicy(rules=tuple(_rule(one) for one in message.rules))


def _rule(message: policy.Rule) -> Rule:
    selector = message.selector
    if message.action not in _ACTIONS:
        raise InvalidParameter(f"source policy: unknown action {message.action}")
    if selector.match_type not in (policy.WILDCARD, policy.EXACT):
        raise Unsupported("source policies that match by regular expressions are not supported")
    if selector.identifier.startswith("local://"):
        raise Unsupported("source policies of local directories are not supported")
    if message.action == policy.CONVERT and not message.HasField("updates"):
        raise InvalidParameter("source policy: missing destination for convert rule")
    conditions: dict[int, list[tuple[str, str]]] = {policy.EQUAL: [], policy.NOTEQUAL: []}
    for one in selector.constraints:
        if one.condition not in conditions:
            raise Unsupported("source policies that match by regular expressions are not supported")
        conditions[one.condition].append((one.key, one.value))
    known = ("http.checksum", "git.checksum")
    if unknown := sorted(set(message.updates.attrs) - set(known)):
        raise Unsupported(f"source policies that set {unknown[0]!r} are not supported")
    return Rule(
        action=_ACTIONS[message.action],
        pattern=selector.identifier,
        exact=selector.match_type == policy.EXACT,
        equal=conditions[policy.EQUAL],
        unequal=conditions[policy.NOTEQUAL],
        replacement=message.updates.identifier,
        attributes=dict(message.updates.attrs),
    )


@dataclass(frozen=True, slots=True)
class PolicedExecutor:
    """An executor whose images a policy chooses. See :class:`sampan.build.executor.Executor`."""

    inner: Executor
    policy: SourcePolicy

    async def base(self, reference: str, platform: Platform, *, pull: bool) -> Image:
        """See :meth:`sampan.build.executor.Executor.base`."""
        return await self.inner.base(self.policy.image(reference), platform, pull=pull)

    async def run(self, request: RunRequest, output: Output) -> int:
        """See :meth:`sampan.build.executor.Executor.run`."""
        return await self.inner.run(request, output)
