//! Device path nodes, text forms, utilities.
