"""How arms move: rotations, kinematics, and the adapters that turn action chunks into poses."""
