//! The edge of the memory allocation services.
