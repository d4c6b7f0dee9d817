//! What really happened in a day, and when: the clock of the day, the state of each process, and lines
//! for people.

use std::cell::RefCell;
use std::time::{Duration, Instant, SystemTime};

use super::schedule::Actor;

/// Seconds since the day began.
pub type At = f64;

/// The state of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Working,
    /// It keeps its connections and does nothing.
    Frozen,
    /// It was killed or told to end, and what it did is cut off.
    Gone,
}

/// One day's diary.
pub struct Diary {
    begun: Instant,
    begun_wall: f64,
    lines: RefCell<Vec<String>>,
    states: RefCell<Vec<(At, Actor, State)>>,
}

impl Diary {
    /// The day begins now; every process works.
    pub fn new() -> Self {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self {
            begun: Instant::now(),
            begun_wall: wall.map_or(0.0, |wall| wall.as_secs_f64()),
            lines: RefCell::default(),
            states: RefCell::default(),
        }
    }

    /// Now.
    pub fn now(&self) -> At {
        self.begun.elapsed().as_secs_f64()
    }

    /// The time in the day of a Unix time.
    pub fn of_unix(&self, unix: f64) -> At {
        unix - self.begun_wall
    }

    /// Waits until so many seconds of the day have passed.
    pub async fn until(&self, seconds: u64) {
        tokio::time::sleep_until((self.begun + Duration::from_secs(seconds)).into()).await;
    }

    /// Something happens.
    pub fn say(&self, what: impl std::fmt::Display) {
        let line = format!("{:7.1} s  {what}", self.now());
        self.lines.borrow_mut().push(line);
    }

    /// A process is in another state.
    pub fn becomes(&self, actor: Actor, state: State) {
        self.say(format_args!("{actor:?} is {state:?}"));
        self.note(self.now(), actor, state);
    }

    /// A process was in another state from this moment on.
    pub fn note(&self, at: At, actor: Actor, state: State) {
        self.states.borrow_mut().push((at, actor, state));
    }

    /// Whether a process was in this state at any moment from `from` to `to`.
    pub fn was(&self, actor: Actor, state: State, from: At, to: At) -> bool {
        let states = self.states.borrow();
        let changes = states.iter().filter(|(_, of, _)| *of == actor);
        let mut now = State::Working;
        let mut since = f64::NEG_INFINITY;
        for (at, _, next) in changes {
            if now == state && since <= to && from <= *at {
                return true;
            }
            (now, since) = (*next, *at);
        }
        now == state && since <= to
    }

    /// All lines.
    pub fn lines(&self) -> String {
        self.lines.borrow().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_holds_from_its_beginning_to_the_next() {
        let diary = Diary::new();
        diary.note(10.0, Actor::Master, State::Gone);
        diary.note(20.0, Actor::Master, State::Working);
        let was = |state, from, to| diary.was(Actor::Master, state, from, to);
        for (from, to, gone) in [
            (0.0, 9.0, false),
            (0.0, 10.0, true),
            (12.0, 13.0, true),
            (20.0, 30.0, true),
            (21.0, 30.0, false),
        ] {
            assert_eq!(was(State::Gone, from, to), gone, "{from} to {to}");
        }
        assert!(was(State::Working, 25.0, 25.0) && !was(State::Working, 15.0, 16.0));
        assert!(!diary.was(Actor::Homu, State::Gone, 0.0, 100.0));
    }
}
