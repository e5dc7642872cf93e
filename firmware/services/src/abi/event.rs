//! The edge of the event, timer and task priority services.
