//! When a volatility pause ends: at a moment that nobody chooses and every replay finds again.

/// How much later than what is told the auction of a pause runs: a hash of the position of the fact that tells the pause
/// and of the symbol, from 0 to `within_us`.
pub fn random_end_us(position: u64, symbol: &str, within_us: i64) -> i64 {
    // FNV-1a, then the finish of MurmurHash3: neighbours' low bits have nothing to do with each other.
    let bytes = position.to_le_bytes().into_iter().chain(symbol.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    let hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    let hash = hash ^ hash >> 33;
    let moments = u64::try_from(within_us).unwrap_or(0) + 1;
    i64::try_from(hash % moments).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITHIN_US: i64 = 30_000_000;

    #[test]
    fn the_end_is_the_same_every_time_and_another_for_another_position_or_symbol() {
        let end = |position, symbol| random_end_us(position, symbol, WITHIN_US);
        assert_eq!(end(7, "AAPL"), end(7, "AAPL"));
        assert!(end(7, "AAPL") != end(8, "AAPL") && end(7, "AAPL") != end(7, "MSFT"));
        assert_eq!((random_end_us(7, "AAPL", 0), random_end_us(7, "AAPL", -5)), (0, 0));
    }

    #[test]
    fn ends_are_spread_over_the_whole_time() {
        let mut tenths = [0; 10];
        for position in 0..10_000 {
            let end = random_end_us(position, "AAPL", WITHIN_US);
            assert!((0..=WITHIN_US).contains(&end));
            tenths[usize::try_from((end * 10 / (WITHIN_US + 1)).min(9)).unwrap()] += 1;
        }
        // A thousand each, give or take four standard deviations.
        assert!(tenths.iter().all(|n| (880..1_120).contains(n)), "{tenths:?}");
    }
}
