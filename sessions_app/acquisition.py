"""The acquisition's parameters: which there are, and what to propose for the next session."""

# In the order people read them.
FIELDS = (
    "voltage_kv",
    "cs_mm",
    "magnification",
    "pixel_size",
    "dose_per_frame",
    "total_dose",
    "frames",
    "exposure_time",
    "energy_slit",
    "spot_size",
)
UNITS = {
    "voltage_kv": "kV",
    "cs_mm": "mm",
    "magnification": "×",
    "pixel_size": "Å",
    "dose_per_frame": "e⁻/Å²",
    "total_dose": "e⁻/Å²",
    "exposure_time": "s",
    "energy_slit": "eV",
}
LABELS = {
    "voltage_kv": "Voltage",
    "cs_mm": "Spherical aberration",
    "magnification": "Nominal magnification",
    "pixel_size": "Pixel size",
    "dose_per_frame": "Dose per frame",
    "total_dose": "Total dose",
    "frames": "Frames per movie",
    "exposure_time": "Exposure time",
    "energy_slit": "Energy filter slit",
    "spot_size": "Spot size",
}
# What a lab chose last time on a microscope is most often what it wants again; voltage and Cs are the microscope's.
FROM_LAST_SESSION = tuple(field for field in FIELDS if field not in ("voltage_kv", "cs_mm"))


def last_session(booking):
    """The lab's newest session on the booking's microscope (the owner's, where the booking has no lab), or None."""
    sessions = booking.microscope.sessions.order_by("-start", "-id").select_related("camera")
    if booking.lab_id is not None:
        return sessions.filter(lab=booking.lab_id).first()
    return sessions.filter(lab=None, booking__owner=booking.owner_id).first()


def acquisition_defaults(booking) -> dict:
    """What to propose by field name, with `camera` among them (a Camera or None); unknown values are None.

    Voltage (kV) and Cs (mm) are the microscope's; the others, and the camera as the pixel size belongs to it, are
    those of the lab's last session on it. Without one, the camera is the microscope's first active one.
    """
    microscope, last = booking.microscope, last_session(booking)
    values = dict.fromkeys(FIELDS)
    values["voltage_kv"] = float(microscope.voltage_kv)
    values["cs_mm"] = float(microscope.cs_mm)
    camera = None
    if last is not None:
        values.update({field: getattr(last, field) for field in FROM_LAST_SESSION})
        camera = last.camera if last.camera is not None and last.camera.is_active else None
    values["camera"] = camera or microscope.cameras.filter(is_active=True).first()
    return values
