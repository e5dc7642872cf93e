//! Steps of a scenario: things done or expected, one after the other. `tests/scenarios/README.md` documents the keys.

use regex::bytes::Regex;
use serde::Deserialize;

use crate::scenario::Kind;
use crate::screen;

/// How long a step may take when it does not say, in seconds.
const TIMEOUT: u64 = 60;
/// The firmware's text console as it is when nobody has set another mode.
const CELLS: (usize, usize) = (80, 25);

/// One thing done or expected, and how long it may take.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "RawStep")]
pub struct Step {
    /// The thing.
    pub action: Action,
    /// Seconds.
    pub timeout: u64,
    /// The only kind of guest that does it; all when it is missing.
    pub only: Option<Kind>,
}

/// A thing done or expected.
#[derive(Debug, Clone)]
pub enum Action {
    /// A log shows a match, behind what the last expectation on it matched.
    Expect {
        /// The pattern, in which `@UTC-DATE@` stands for today's date as MM/DD/YYYY.
        pattern: String,
        /// The group `epoch` of the pattern is the host's time within so many seconds.
        clock_within: Option<u64>,
        /// Where; the scenario's console when it is missing.
        on: Option<Channel>,
    },
    /// This is typed.
    Send {
        /// The text.
        text: String,
        /// Where; the scenario's console when it is missing.
        on: Option<Channel>,
    },
    /// These keys are pressed on the emulated keyboard.
    Keys(Vec<String>),
    /// The screen shows this.
    Screenshot(Screenshot),
    /// The domain ends so, or is still there.
    State(Expected),
    /// `xl create` refuses the guest and says a match of this. It is the only step.
    CreateFails(String),
    /// The guest is saved and restored.
    SaveRestore,
    /// This shell script runs in dom0, and succeeds.
    Dom0(String),
    /// Nothing, for this many seconds.
    Pause(u64),
}

/// Where a guest writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Channel {
    /// Xen's paravirtual console; the serial port where there is no Xen.
    #[default]
    Xen,
    /// The emulated serial port.
    Serial,
    /// The hypervisor's log: the lines that the guest, or hvmloader in it, wrote to its debug port.
    Log,
}

/// What the screen is expected to show; all of it at the same time.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Screenshot {
    /// The picture is kept under this name, as a PNG among the guest's logs.
    pub name: String,
    /// Width and height in pixels.
    pub size: Option<(usize, usize)>,
    /// Columns and rows of the text in the middle of the screen, in the firmware's font.
    #[serde(default = "default_cells")]
    pub cells: (usize, usize),
    /// Patterns that the text shows, in this order.
    #[serde(default)]
    pub text: Vec<String>,
    /// How many cells may show what is no character of the font.
    #[serde(default)]
    pub unreadable: usize,
    /// Colours of pixels.
    #[serde(default, rename = "pixel")]
    pub pixels: Vec<Pixel>,
    /// How many colours the picture has at least.
    #[serde(default)]
    pub colours: usize,
}

/// A pixel's colour.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pixel {
    /// Column and line.
    pub at: (usize, usize),
    /// Red, green, blue in hexadecimal.
    pub is: String,
}

/// How a domain is expected to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expected {
    /// It powers off.
    Poweroff,
    /// It asks for a reboot.
    Reboot,
    /// It crashes.
    Crash,
    /// It is still running.
    Running,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawStep {
    expect: Option<String>,
    clock_within: Option<u64>,
    send: Option<String>,
    on: Option<Channel>,
    keys: Option<Vec<String>>,
    screenshot: Option<Screenshot>,
    state: Option<Expected>,
    create_fails: Option<String>,
    save_restore: Option<bool>,
    dom0: Option<String>,
    pause: Option<u64>,
    only: Option<Kind>,
    timeout: Option<u64>,
}

impl TryFrom<RawStep> for Step {
    type Error = String;

    fn try_from(raw: RawStep) -> Result<Self, String> {
        let mut actions = Vec::new();
        if let Some(pattern) = raw.expect {
            check_pattern(&pattern)?;
            if raw.clock_within.is_some() && !pattern.contains("(?<epoch>") {
                return Err("clock-within needs a group (?<epoch>...) in expect".into());
            }
            actions.push(Action::Expect { pattern, clock_within: raw.clock_within, on: raw.on });
        } else if raw.clock_within.is_some() {
            return Err("clock-within goes with expect".into());
        } else if raw.on.is_some() && raw.send.is_none() {
            return Err("on goes with expect or send".into());
        }
        if let Some(text) = raw.send {
            if raw.on == Some(Channel::Log) {
                return Err("nothing can be typed on the log".into());
            }
            actions.push(Action::Send { text, on: raw.on });
        }
        if let Some(screenshot) = raw.screenshot {
            screenshot.check()?;
            actions.push(Action::Screenshot(screenshot));
        }
        if let Some(pattern) = raw.create_fails {
            check_pattern(&pattern)?;
            actions.push(Action::CreateFails(pattern));
        }
        actions.extend(raw.keys.map(Action::Keys));
        actions.extend(raw.state.map(Action::State));
        actions.extend(raw.save_restore.filter(|yes| *yes).map(|_| Action::SaveRestore));
        actions.extend(raw.dom0.map(Action::Dom0));
        actions.extend(raw.pause.map(Action::Pause));
        match (actions.pop(), actions.is_empty()) {
            (Some(action), true) => Ok(Self { action, timeout: raw.timeout.unwrap_or(TIMEOUT), only: raw.only }),
            _ => Err(
                "a step has exactly one of expect, send, keys, screenshot, state, create-fails, save-restore, dom0, pause"
                    .into(),
            ),
        }
    }
}

impl Step {
    /// Where it looks or types, if it does.
    #[must_use]
    pub fn channel(&self) -> Option<Channel> {
        match self.action {
            Action::Expect { on, .. } | Action::Send { on, .. } => on,
            _ => None,
        }
    }
}

impl Screenshot {
    /// A picture that nothing is expected of proves nothing.
    fn check(&self) -> Result<(), String> {
        if self.size.is_none() && self.text.is_empty() && self.pixels.is_empty() && self.colours == 0 {
            return Err("a screenshot expects a size, text, pixel or colours".into());
        }
        self.text.iter().try_for_each(|pattern| check_pattern(pattern))?;
        let colours = self.pixels.iter().map(|pixel| screen::colour(&pixel.is));
        colours.map(|colour| colour.map(drop)).try_for_each(|colour| colour.map_err(|error| error.to_string()))
    }
}

fn check_pattern(pattern: &str) -> Result<(), String> {
    Regex::new(pattern).map(drop).map_err(|error| error.to_string())
}

fn default_cells() -> (usize, usize) {
    CELLS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Step, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn a_step_does_one_thing() {
        assert!(parse("expect = 'a'\nsend = 'b'").is_err());
        assert!(parse("timeout = 5").is_err());
    }

    #[test]
    fn a_malformed_pattern_is_an_error() {
        assert!(parse("expect = '('").is_err());
        assert!(parse("create-fails = '('").is_err());
        assert!(parse("screenshot = { name = 'a', text = ['('] }").is_err());
    }

    #[test]
    fn a_clock_needs_a_group() {
        assert!(parse("expect = 'a'\nclock-within = 5").is_err());
        assert!(parse("expect = '(?<epoch>1)'\nclock-within = 5").is_ok());
    }

    #[test]
    fn a_channel_goes_with_what_reads_or_types() {
        assert!(parse("expect = 'a'\non = 'log'").is_ok());
        assert!(parse("send = 'a'\non = 'serial'").is_ok());
        assert!(parse("send = 'a'\non = 'log'").is_err());
        assert!(parse("pause = 1\non = 'xen'").is_err());
    }

    #[test]
    fn a_screenshot_expects_something() {
        assert!(parse("screenshot = { name = 'a' }").is_err());
        assert!(parse("screenshot = { name = 'a', size = [640, 480] }").is_ok());
        assert!(parse("screenshot = { name = 'a', pixel = [{ at = [0, 0], is = 'red' }] }").is_err());
        assert!(parse("screenshot = { name = 'a', sise = [640, 480] }").is_err());
    }
}
