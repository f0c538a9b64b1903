//! How loud a show is: what the levels that ffmpeg measures mean over time.
//!
//! Owns the rules for silence and clipping. Must never act upon them.

use aircheck_proto::ingest::Alarm;
use aircheck_runtime::levels::Level;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::Notify;

/// Sound below this peak is silence, in dB of full scale.
const SILENT_DB: f32 = -60.0;
/// Sound that reaches this peak clips, in dB of full scale.
const CLIPPING_DB: f32 = -0.1;
/// Seconds that clip, one after the other, before it is worth saying; and as many that don't end it.
const CLIPPING_S: u64 = 3;

/// What is to be watched.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Watch {
    /// Silence for so long is an alarm.
    pub(crate) silence: Option<Duration>,
    /// So is sound that clips.
    pub(crate) clipping: bool,
}

impl Watch {
    /// Whether there is anything to decode for.
    pub(crate) fn is_wanted(self) -> bool {
        self.silence.is_some() || self.clipping
    }
}

#[derive(Debug, Default)]
struct Seconds {
    silent: u64,
    clipping: u64,
    clean: u64,
    is_clipping: bool,
}

/// The levels of one show, and the alarms they raise.
#[derive(Debug)]
pub(crate) struct Ears {
    watch: Watch,
    seconds: Mutex<Seconds>,
    news: Arc<Notify>,
}

impl Ears {
    /// `news` is told of every alarm that begins or ends.
    pub(crate) fn new(watch: Watch, news: Arc<Notify>) -> Self {
        Self {
            watch,
            seconds: Mutex::default(),
            news,
        }
    }

    /// One more second of sound.
    pub(crate) fn hear(&self, level: Level) {
        let before = self.alarms();
        {
            let mut seconds = self.seconds.lock().unwrap_or_else(PoisonError::into_inner);
            seconds.hear(level);
        }
        let now = self.alarms();
        for alarm in now.iter().filter(|alarm| !before.contains(alarm)) {
            let alarm = alarm.word().unwrap_or_default();
            tracing::warn!(alarm, peak_db = level.peak_db, "the show's sound is amiss");
            metrics::counter!("aircheck_alarms_total", "alarm" => alarm).increment(1);
        }
        if now != before {
            self.news.notify_one();
        }
    }

    /// What is amiss at present.
    pub(crate) fn alarms(&self) -> Vec<Alarm> {
        let seconds = self.seconds.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = self.watch.silence.map(|limit| limit.as_secs().max(1));
        let silent = limit.is_some_and(|limit| seconds.silent >= limit);
        let clipping = self.watch.clipping && seconds.is_clipping;
        let alarms = [(silent, Alarm::Silence), (clipping, Alarm::Clipping)];
        let raised = alarms.into_iter().filter(|(raised, _)| *raised);
        raised.map(|(_, alarm)| alarm).collect()
    }
}

impl Seconds {
    fn hear(&mut self, level: Level) {
        let counted = |holds: bool, seconds: u64| if holds { seconds + 1 } else { 0 };
        self.silent = counted(level.peak_db < SILENT_DB, self.silent);
        let clips = level.peak_db >= CLIPPING_DB;
        self.clipping = counted(clips, self.clipping);
        self.clean = counted(!clips, self.clean);
        if self.clipping >= CLIPPING_S || self.clean >= CLIPPING_S {
            self.is_clipping = clips;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ears() -> Ears {
        let watch = Watch {
            silence: Some(Duration::from_secs(5)),
            clipping: true,
        };
        Ears::new(watch, Arc::default())
    }

    fn hear(ears: &Ears, peak_db: f32, seconds: u64) -> Vec<Alarm> {
        let rms_db = peak_db - 3.0;
        (0..seconds).for_each(|_| ears.hear(Level { peak_db, rms_db }));
        ears.alarms()
    }

    #[test]
    fn silence_is_said_after_its_time_and_ends_with_the_first_sound() {
        let ears = ears();
        assert_eq!(hear(&ears, f32::NEG_INFINITY, 4), []);
        assert_eq!(hear(&ears, -70.0, 1), [Alarm::Silence]);
        assert_eq!(hear(&ears, -40.0, 1), []);
        assert_eq!(hear(&ears, -70.0, 4), [], "counted anew");
    }

    #[test]
    fn clipping_is_said_when_it_lasts_and_ends_when_that_lasts() {
        let ears = ears();
        assert_eq!(hear(&ears, 0.0, 2), []);
        assert_eq!(hear(&ears, -6.0, 1), [], "one loud moment is none");
        assert_eq!(hear(&ears, 1.5, 3), [Alarm::Clipping]);
        assert_eq!(hear(&ears, -6.0, 2), [Alarm::Clipping]);
        assert_eq!(hear(&ears, -6.0, 1), []);
    }

    #[test]
    fn what_is_not_watched_raises_nothing() {
        let ears = Ears::new(Watch::default(), Arc::default());
        assert_eq!(hear(&ears, f32::NEG_INFINITY, 100), []);
        assert_eq!(hear(&ears, 3.0, 100), []);
    }
}
