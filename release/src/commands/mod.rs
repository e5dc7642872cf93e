//! The commands. Each file has `Arguments` and `run`.

pub mod audit;
pub mod compare;
pub mod inspect;
pub mod join;
pub mod pin;
pub mod pins;
pub mod sign;
pub mod split;
pub mod vars;
pub mod verify;

/// How a command that ran to its end ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Done, or what was asked about holds: exit status 0.
    Success,
    /// What was asked about does not hold (a mismatch, a bad signature); the command has said what: exit status 1.
    Failure,
    /// It could not be found out; the command has said why: exit status 3.
    Unknown,
    /// A release that nobody has signed, and nothing else is wrong with it: exit status 4.
    Unsigned,
}

impl Outcome {
    /// The exit status of the program. 2 is wrong usage, which clap reports; an error of a command is 1.
    #[must_use]
    pub const fn exit_status(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::Unknown => 3,
            Self::Unsigned => 4,
        }
    }
}
