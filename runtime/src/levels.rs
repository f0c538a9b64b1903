//! How loud sound is, as ffmpeg's filters tell it on standard output.
//!
//! Owns the filters and the reading of their lines. Must never say what a level means.

/// Of what a level is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// Each second by itself.
    Second,
    /// All so far, once a second and at the end.
    SoFar,
}

impl Span {
    /// The filters that tell it.
    #[must_use]
    pub fn filters(self) -> String {
        let frames_until_reset = match self {
            Self::Second => 1,
            Self::SoFar => 0,
        };
        // One second of sound is one frame.
        format!(
            "aresample=48000,asetnsamples=n=48000:p=0,\
             astats=metadata=1:reset={frames_until_reset}:measure_perchannel=none:\
             measure_overall=Peak_level+RMS_level,\
             ametadata=mode=print:direct=1:file=-"
        )
    }
}

/// How loud some sound is, in dB of full scale; minus infinity for digital silence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// Highest sample.
    pub peak_db: f32,
    /// Root mean square.
    pub rms_db: f32,
}

/// Reads levels from what the filters print, line by line.
#[derive(Debug, Default)]
pub struct Reading {
    peak_db: Option<f32>,
}

impl Reading {
    /// A level, once its last line is in.
    pub fn line(&mut self, line: &[u8]) -> Option<Level> {
        let text = std::str::from_utf8(line).ok()?;
        let (key, value) = text
            .strip_prefix("lavfi.astats.Overall.")?
            .split_once('=')?;
        let value: f32 = value.trim().parse().ok()?;
        match key {
            "Peak_level" => self.peak_db = Some(value),
            "RMS_level" => {
                let peak_db = self.peak_db.take()?;
                let rms_db = value;
                return Some(Level { peak_db, rms_db });
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_from_what_ffmpeg_prints() {
        let mut reading = Reading::default();
        let said = "frame:0    pts:0       pts_time:0\n\
            lavfi.astats.Overall.Peak_level=-inf\nlavfi.astats.Overall.RMS_level=-inf\n\
            frame:1    pts:48000   pts_time:1\nnonsense\n\
            lavfi.astats.Overall.Peak_level=-3.010300\nlavfi.astats.Overall.RMS_level=-20.5\n";
        let levels = said.as_bytes().split(|byte| *byte == b'\n');
        let levels: Vec<_> = levels.filter_map(|line| reading.line(line)).collect();
        let silent = f32::NEG_INFINITY;
        let level = |peak_db, rms_db| Level { peak_db, rms_db };
        assert_eq!(levels, [level(silent, silent), level(-3.0103, -20.5)]);
    }
}
