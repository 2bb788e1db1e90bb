//! How many rows a batch takes: the setting; less after a timeout, growing back; and after a row has
//! failed so many as find it soonest.

/// The size of the next batch of one policy, in rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchSize {
    current: usize,
    /// One of so many rows that come next has failed, and made them fail together.
    suspects: usize,
}

impl BatchSize {
    /// Starts at `setting` rows; never below one.
    pub fn new(setting: usize) -> Self {
        Self { current: setting.max(1), suspects: 0 }
    }

    /// The size to use while the setting is `setting`: a lowered setting holds at once.
    pub fn get(&self, setting: usize) -> usize {
        self.current.clamp(1, setting.max(1))
    }

    /// Whether it is the setting, as far as it ever grows, and no row is looked for.
    pub fn is_whole(&self, setting: usize) -> bool {
        self.suspects == 0 && self.get(setting) == setting.max(1)
    }

    /// A batch of `tried` rows went through: twice as many the next time, up to the setting. Where a
    /// row that failed is among those to come, half of these.
    pub fn succeeded(&mut self, setting: usize, tried: usize) {
        self.suspects = self.suspects.saturating_sub(tried);
        self.current = match self.suspects {
            0 => self.get(setting).saturating_mul(2).min(setting.max(1)),
            suspects => suspects.div_ceil(2),
        };
    }

    /// A batch of `tried` rows took too long: half as many.
    pub fn timed_out(&mut self, tried: usize) {
        self.current = (tried / 2).max(1);
    }

    /// A row of a batch of `tried` failed: half as many, until it is alone.
    pub fn failed(&mut self, tried: usize) {
        self.suspects = tried;
        self.current = (tried / 2).max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_timeout_halves_down_to_one_row() {
        let mut size = BatchSize::new(5);
        size.timed_out(5);
        assert_eq!(size.get(5), 2);
        size.timed_out(2);
        assert_eq!(size.get(5), 1);
        size.timed_out(1);
        assert_eq!(size.get(5), 1);
    }

    #[test]
    fn success_grows_back_to_the_setting_and_no_further() {
        let mut size = BatchSize::new(1000);
        for _ in 0..20 {
            size.timed_out(size.get(1000));
        }
        for expected in [2, 4, 8] {
            size.succeeded(1000, size.get(1000));
            assert_eq!(size.get(1000), expected);
            assert!(!size.is_whole(1000));
        }
        for _ in 0..20 {
            size.succeeded(1000, size.get(1000));
        }
        assert_eq!(size.get(1000), 1000);
        assert!(size.is_whole(1000));
    }

    /// How many batches it takes until the bad one of `rows` rows is alone.
    fn search(rows: usize, bad: usize) -> usize {
        let mut size = BatchSize::new(rows);
        let (mut at, mut batches) = (0, 0);
        loop {
            let tried = size.get(rows).min(rows - at);
            batches += 1;
            if (at..at + tried).contains(&bad) {
                if tried == 1 {
                    return batches;
                }
                size.failed(tried);
                assert!(!size.is_whole(rows), "{size:?}");
            } else {
                size.succeeded(rows, tried);
                at += tried;
            }
        }
    }

    #[test]
    fn a_row_that_fails_is_alone_after_as_many_batches_as_halvings() {
        for bad in 0..1000 {
            let batches = search(1000, bad);
            assert!(batches <= 12, "{batches} batches for row {bad}");
        }
        assert_eq!(search(1, 0), 1);
    }

    #[test]
    fn a_batch_of_one_row_that_failed_is_not_whole_until_one_went_through() {
        let mut size = BatchSize::new(1);
        size.failed(1);
        assert!(!size.is_whole(1));
        size.succeeded(1, 1);
        assert!(size.is_whole(1));
    }

    proptest! {
        #[test]
        fn a_batch_is_never_empty_nor_above_the_setting(
            events in proptest::collection::vec((0..3, 0usize..5000), 0..60)
        ) {
            let mut size = BatchSize::new(0);
            for (event, setting) in events {
                let tried = size.get(setting);
                match event {
                    0 => size.timed_out(tried),
                    1 => size.failed(tried),
                    _ => size.succeeded(setting, tried),
                }
                prop_assert!((1..=setting.max(1)).contains(&size.get(setting)));
            }
        }
    }
}
