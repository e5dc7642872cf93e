//! The interrupt flag of this CPU. On the host (tests) these do nothing.

/// Whether maskable interrupts were enabled; hand it back to [`restore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enabled(pub bool);

/// Disables interrupts and tells whether they were enabled.
#[inline(always)]
pub fn disable() -> Enabled {
    #[cfg(target_os = "none")]
    {
        let was = x86_64::instructions::interrupts::are_enabled();
        if was {
            x86_64::instructions::interrupts::disable();
        }
        Enabled(was)
    }
    #[cfg(not(target_os = "none"))]
    Enabled(false)
}

/// Enables interrupts again where [`disable`] found them enabled.
#[inline(always)]
pub fn restore(state: Enabled) {
    #[cfg(target_os = "none")]
    if state.0 {
        x86_64::instructions::interrupts::enable();
    }
    #[cfg(not(target_os = "none"))]
    let _ = state;
}

/// Enables interrupts.
pub fn enable() {
    restore(Enabled(true));
}

/// Enables interrupts and halts until one arrives.
pub fn wait() {
    #[cfg(target_os = "none")]
    x86_64::instructions::interrupts::enable_and_hlt();
}
