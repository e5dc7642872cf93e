//! Boot services for the firmware's own drivers: safe functions over the one core.
