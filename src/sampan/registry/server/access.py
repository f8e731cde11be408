"""Who may do what: identities, rules and the answer to a request without sufficient rights.

:class:`Rules` decides, purely, from values; :mod:`passwords` and :mod:`tokens` beside this module
find out who is asking.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from sampan.registry.server.config import Access

#: The scope actions of the Docker token specification; ``*`` means all of them.
ALL_ACTIONS = ("pull", "push", "delete")


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Actions on one resource that a token carries (Docker token specification, "access")."""

    type: str
    name: str
    actions: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who is asking: ``user`` is empty for nobody in particular.

    ``grants`` is None when rules decide, or what the token presented allows, and nothing else.
    """

    user: str = ""
    grants: tuple[Grant, ...] | None = None


ANONYMOUS = Identity()


@dataclass(frozen=True, slots=True)
class Rules:
    """The configured rights. Without any rule an authenticated user may do everything.

    ``open`` says that no authentication is configured: then everybody may do everything that no
    rule restricts.
    """

    rules: Sequence[Access]
    open: bool

    def actions(self, user: str, repository: str) -> frozenset[str]:
        """What ``user`` may do in ``repository``."""
        if not self.rules:
            return frozenset(ALL_ACTIONS) if self.open or user else frozenset()
        return frozenset(
            action
            for rule in self.rules
            if rule.user in ("", user) or (rule.user == "*" and user)
            if fnmatchcase(repository, rule.repository)
            for action in rule.actions
        )

    @property
    def names_anybody(self) -> bool:
        """Whether some rule lets people in without authentication."""
        return any(rule.user == "" for rule in self.rules)

    def allows(self, identity: Identity, repository: str, action: str) -> bool:
        """Whether ``identity`` may do ``action`` in ``repository``."""
        if identity.grants is None:
            return action in self.actions(identity.user, repository)
        return any(
            grant.type == "repository"
            and grant.name == repository
            and (action in grant.actions or "*" in grant.actions)
            for grant in identity.grants
        )

    def lists_catalog(self, identity: Identity) -> bool:
        """Whether ``identity`` may ask which repositories there are (it sees those it may pull)."""
        if identity.grants is None:
            return bool(self.open or identity.user)
        return any(
            grant.type == "registry" and grant.name == "catalog" and "*" in grant.actions
            for grant in identity.grants
        )

    def grant(self, user: str, scopes: Iterable[str]) -> tuple[Grant, ...]:
        """The part that ``user`` may have of ``scopes`` (each ``type:name:action,action``)."""
        grants = []
        for scope in scopes:
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            kind = kind.partition("(")[0]  # repository(plugin)
            wanted = set(actions.split(","))
            if kind == "repository":
                allowed = self.actions(user, name)
                if "*" in wanted:
                    wanted = set(ALL_ACTIONS)
            elif (kind, name) == ("registry", "catalog") and (user or self.open):
                allowed = frozenset("*")
            else:
                allowed = frozenset()
            if granted := tuple(sorted(wanted & allowed)):
                grants.append(Grant(type=kind, name=name, actions=granted))
        return tuple(grants)


def scope(repository: str, *actions: str) -> str:
    """The scope a challenge asks a client to get."""
    return f"repository:{repository}:{','.join(actions)}"
