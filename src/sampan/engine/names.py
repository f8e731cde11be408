"""Names of containers: their grammar, and made-up ones (``adjective_surname``, as Docker's).

The surnames are of people who moved goods, ships, light and computation about.
"""

from __future__ import annotations

import re
from collections.abc import Container
from random import Random

from sampan.errors import InvalidParameter


def _split(words: str) -> tuple[str, ...]:
    return tuple(words.split())


_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_VOLUME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")

_ADJECTIVES = _split(
    """
    agile amber ample ancient ardent artful azure balmy bold brave breezy bright brisk calm
    candid careful cheerful clear clever coastal cordial cosy crisp curious daring deft distant
    eager early earnest easy elegant even fair faithful famous fearless festive fleet fluent
    fond frank free fresh friendly gallant generous gentle glad golden graceful grand hardy
    harmonic hasty helpful honest hopeful humble idle jolly jovial joyful keen kind lasting
    lively lofty loyal lucid lucky luminous mellow merry mighty mild modest musing neat nimble
    noble open patient peaceful placid playful plucky polite prompt proud quick quiet radiant
    ready restful rising robust rustic sage serene sharp silent silver simple sincere smooth
    snug sober solar solid spry stately steady stellar sturdy subtle sunny sure swift tender
    thrifty tidal tidy tranquil true trusty upbeat valiant vast verdant vivid warm wakeful
    watchful willing windy wise witty worthy zealous zesty"""
)
_SURNAMES = _split(
    """
    abbe acheson aiken allen ampere anning atanasoff babbage bacon baird banneker bardeen bell
    bernoulli bessel blackwell bohr boole bose brahe braille brattain brunel burnell cabot
    cannon carothers cassini cauchy cavendish celsius champollion chandrasekhar chappe cook
    copernicus coulomb cousteau curie daguerre dalton darwin davy descartes diesel dijkstra
    dirac doppler drake earhart edison einstein engelbart ericson erdos euclid euler faraday
    fermat fermi feynman fibonacci flamsteed fleming fourier franklin fresnel frobisher galilei
    galois gauss gilbert goddard godel goodall gutenberg hadley haber halley hamilton hamming
    harrison heaviside henry hero herschel hertz hilbert hipparchus hodgkin hooke hopper hubble
    hudson humboldt huygens hypatia jacquard johnson joule kahn kapitsa kepler khayyam khwarizmi
    kilby klein kovalevskaya lagrange lamarr lamport laplace lavoisier leavitt leibniz lovelace
    magellan marconi maxwell mayer mcclintock mclean meitner mendel mercator merian mitchell
    moore morse nansen napier newcomen newton nobel noether noyce oersted ohm pacioli pare
    pascal pasteur payne perlman planck plimsoll poincare polo ptolemy pythagoras ramanujan
    raleigh rayleigh ride riemann ritchie roentgen rubin rumford rutherford sagan shannon snell
    somerville stephenson stevin swan tereshkova tesla thales thompson torricelli turing volta
    wallace watt wegener wheatstone wilkes wright wu yalow young zheng zuse"""
)


def random_name(random: Random, taken: Container[str]) -> str:
    """A made-up name not in ``taken``: ``brisk_plimsoll``, or with a number when unlucky."""
    for attempt in range(64):
        name = f"{random.choice(_ADJECTIVES)}_{random.choice(_SURNAMES)}"
        if attempt > 5:
            name += str(random.randrange(10 ** (attempt // 6)))
        if name not in taken:
            return name
    raise InvalidParameter("no free container name found; give one")


def check_name(name: str) -> str:
    """The container name without its leading slash; raises InvalidParameter when malformed."""
    bare = name.removeprefix("/")
    if not _NAME.fullmatch(bare):
        raise InvalidParameter(
            f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )
    return bare


def check_volume_name(name: str) -> str:
    """The volume name; raises InvalidParameter when malformed."""
    if not _VOLUME.fullmatch(name):
        raise InvalidParameter(
            f'create {name}: "{name}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, '
            "use absolute path"
        )
    return name
