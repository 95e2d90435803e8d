//! SplitMix64 (Steele, Lea, Flood 2014): small, seeded, the same everywhere.

/// A stream of random numbers.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// `0..n`; 0 for `n` = 0. The bias is below n / 2⁶⁴.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.word()) * u128::from(n)) >> 64) as u64
    }

    /// A position in a list of this length; 0 for an empty one.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// `low..=high`.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        low + self.below(high.saturating_sub(low).saturating_add(1).max(1).cast_unsigned()).cast_signed()
    }

    /// True in `per_mille` of 1,000 cases.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1_000) < per_mille
    }

    /// Nearly normal around 0 with this standard deviation: the sum of twelve uniform numbers.
    pub fn normal(&mut self, deviation: i64) -> i64 {
        let sum: i64 = (0..3).map(|_| self.word()).map(quarter_sum).sum();
        // Twelve numbers of 0..65536: mean 393,210, deviation 65,536.
        (sum - 393_210) * deviation / 65_536
    }
}

fn quarter_sum(word: u64) -> i64 {
    (0..4).map(|i| (word >> (16 * i) & 0xFFFF).cast_signed()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_paper() {
        let mut rng = Rng::new(1_234_567);
        assert_eq!([rng.word(), rng.word()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
    }

    #[test]
    fn normal_numbers_have_their_mean_and_deviation() {
        let mut rng = Rng::new(7);
        let numbers: Vec<i64> = (0..100_000).map(|_| rng.normal(1_000)).collect();
        let mean = numbers.iter().sum::<i64>() / 100_000;
        let variance = numbers.iter().map(|n| n * n).sum::<i64>() / 100_000;
        assert!(mean.abs() < 15, "{mean}");
        assert!((980_000..1_020_000).contains(&variance), "{variance}");
    }
}
