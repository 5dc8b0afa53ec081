//! Made-up conversations: the demo inbox, and a large one that follows from three numbers.

pub mod store;

/// Messages of one statement, or one conversation where that has more.
const BATCH: u64 = 10_000;

/// The demo inbox: idempotent inserts, as one transaction.
pub const DEMO: &str = include_str!("../../seeds/demo.sql");

/// A large inbox.
pub struct Large {
    pub conversations: u64,
    pub messages: u64,
    /// The same seed makes the same inbox.
    pub seed: String,
}

impl Large {
    /// The conversations of each statement.
    pub fn batches(&self) -> Batches<'_> {
        Batches {
            large: self,
            number: 0,
        }
    }

    /// How many messages the conversations before this one have together. Each has at least one;
    /// the lower its number, the more it has.
    fn messages_before(&self, number: u64) -> u64 {
        const ONE: u64 = 1 << 20;
        // With x = number / conversations, the share is 2√x - x. Whole numbers are the same on
        // every machine.
        let root = (number * ONE * ONE / self.conversations).isqrt();
        let share = ONE * ONE - (ONE - root) * (ONE - root);
        let shared = u128::from(self.messages - self.conversations) * u128::from(share)
            / u128::from(ONE * ONE);
        number + u64::try_from(shared).expect("a share of a u64 is one")
    }
}

/// The numbers and the sizes of the conversations of each statement.
pub struct Batches<'a> {
    large: &'a Large,
    number: u64,
}

impl Iterator for Batches<'_> {
    type Item = (Vec<i64>, Vec<i64>);

    fn next(&mut self) -> Option<Self::Item> {
        let (mut numbers, mut sizes) = (Vec::new(), Vec::new());
        let begun = self.large.messages_before(self.number);
        while self.number < self.large.conversations {
            let before = self.large.messages_before(self.number);
            let after = self.large.messages_before(self.number + 1);
            if !numbers.is_empty() && after - begun > BATCH {
                break;
            }
            numbers.push(self.number.cast_signed());
            sizes.push((after - before).cast_signed());
            self.number += 1;
        }
        (!numbers.is_empty()).then_some((numbers, sizes))
    }
}
