//! How many rows a batch takes: the setting, less after a timeout, growing back.

/// The size of the next batch of one policy, in rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchSize {
    current: usize,
}

impl BatchSize {
    /// Starts at `setting` rows; never below one.
    pub fn new(setting: usize) -> Self {
        Self { current: setting.max(1) }
    }

    /// The size to use while the setting is `setting`: a lowered setting holds at once.
    pub fn get(&self, setting: usize) -> usize {
        self.current.clamp(1, setting.max(1))
    }

    /// Whether it is the setting, as far as it ever grows.
    pub fn is_whole(&self, setting: usize) -> bool {
        self.get(setting) == setting.max(1)
    }

    /// A batch went through: twice as many the next time, up to the setting.
    pub fn succeeded(&mut self, setting: usize) {
        self.current = self.get(setting).saturating_mul(2).min(setting.max(1));
    }

    /// A batch took too long: half as many. False when it was one row already, so that a
    /// smaller batch cannot help.
    pub fn timed_out(&mut self, setting: usize) -> bool {
        let tried = self.get(setting);
        self.current = (tried / 2).max(1);
        tried > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_timeout_halves_down_to_one_row_and_says_when_it_cannot_help() {
        let mut size = BatchSize::new(5);
        assert!(size.timed_out(5));
        assert_eq!(size.get(5), 2);
        assert!(size.timed_out(5));
        assert_eq!(size.get(5), 1);
        assert!(!size.timed_out(5));
        assert_eq!(size.get(5), 1);
    }

    #[test]
    fn success_grows_back_to_the_setting_and_no_further() {
        let mut size = BatchSize::new(1000);
        for _ in 0..20 {
            size.timed_out(1000);
        }
        for expected in [2, 4, 8] {
            size.succeeded(1000);
            assert_eq!(size.get(1000), expected);
            assert!(!size.is_whole(1000));
        }
        for _ in 0..20 {
            size.succeeded(1000);
        }
        assert_eq!(size.get(1000), 1000);
        assert!(size.is_whole(1000));
    }

    proptest! {
        #[test]
        fn a_batch_is_never_empty_nor_above_the_setting(
            events in proptest::collection::vec((any::<bool>(), 0usize..5000), 0..60)
        ) {
            let mut size = BatchSize::new(0);
            for (timed_out, setting) in events {
                if timed_out { size.timed_out(setting); } else { size.succeeded(setting); }
                prop_assert!((1..=setting.max(1)).contains(&size.get(setting)));
            }
        }
    }
}
