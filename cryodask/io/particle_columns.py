"""The columns of a particle table in the house's names and units, and those of each program's file.

Lengths in angstrom, angles in degrees, voltage in kV, Cs in mm. Origins are RELION's: the particle lies at
minus the origin from pixel n//2. What a file does not say is NaN.
"""

NUMBERS = (
    "voltage",
    "cs",
    "amplitude_contrast",
    "phase_shift",
    "defocus_u",
    "defocus_v",
    "defocus_angle",
    "b_factor",
    "origin_x",
    "origin_y",
    "rot",
    "tilt",
    "psi",
    "psi_prior",
    "coordinate_x",
    "coordinate_y",
)

RELION = {
    "voltage": "rlnVoltage",
    "cs": "rlnSphericalAberration",
    "amplitude_contrast": "rlnAmplitudeContrast",
    "phase_shift": "rlnPhaseShift",
    "defocus_u": "rlnDefocusU",
    "defocus_v": "rlnDefocusV",
    "defocus_angle": "rlnDefocusAngle",
    "b_factor": "rlnCtfBfactor",
    "rot": "rlnAngleRot",
    "tilt": "rlnAngleTilt",
    "psi": "rlnAnglePsi",
    "psi_prior": "rlnAnglePsiPrior",
    "coordinate_x": "rlnCoordinateX",
    "coordinate_y": "rlnCoordinateY",
}
