//! Task priority levels, events and timers for our own code.
