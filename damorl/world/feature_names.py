"""What the features of the built-in tasks' states are called, in the order of Gymnasium's documentation."""

from __future__ import annotations


def _names(positions: str, velocities: str) -> tuple[str, ...]:
    return (*positions.split(), *(f"{name} velocity" for name in velocities.split()))


_HOPPER = "thigh leg foot"
_CHEETAH = "back-thigh back-shin back-foot front-thigh front-shin front-foot"
_WALKER = "right-thigh right-leg right-foot left-thigh left-leg left-foot"
_LEGS = ("front-left", "front-right", "back-left", "back-right")
_ANT = " ".join(f"{leg}-{joint}" for leg in _LEGS for joint in ("hip", "ankle"))

HOPPER = _names(f"height pitch {_HOPPER}", f"x z pitch {_HOPPER}")
HALFCHEETAH = _names(f"height pitch {_CHEETAH}", f"x z pitch {_CHEETAH}")
WALKER2D = _names(f"height pitch {_WALKER}", f"x z pitch {_WALKER}")
ANT = _names(f"height quaternion-w quaternion-x quaternion-y quaternion-z {_ANT}", f"x y z roll pitch yaw {_ANT}")
INVERTED_DOUBLE_PENDULUM = (
    *_names("cart sin-first sin-second cos-first cos-second", "cart first-pole second-pole"),
    *(f"{joint} constraint force" for joint in ("cart", "first-pole", "second-pole")),
)
PENDULUM = _names("cos-angle sin-angle", "angle")
