//! Random draws in floats. Only `+ - * /` and the square root, which IEEE 754 fixes to the bit: the same seed gives the
//! same market on every machine.

use fafnir_rules::rng::Rng;

/// 2⁻⁵³.
const UNIT: f64 = 1.0 / 9_007_199_254_740_992.0;

/// A stream of its own for one purpose of one symbol.
pub fn stream(seed: u64, symbol: &str, purpose: &str) -> Rng {
    // FNV-1a over both names, begun at the seed.
    let mix = |h: u64, b: u8| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3);
    let begin = Rng::new(seed).word() ^ 0xcbf2_9ce4_8422_2325;
    Rng::new(symbol.bytes().chain([0]).chain(purpose.bytes()).fold(begin, mix))
}

/// Uniform in `(0, 1)`.
pub fn uniform(rng: &mut Rng) -> f64 {
    ((rng.word() >> 11) as f64 + 0.5) * UNIT
}

/// True with this probability.
pub fn happens(rng: &mut Rng, probability: f64) -> bool {
    uniform(rng) < probability
}

/// Nearly normal with mean 0 and deviation 1: the sum of twelve uniform numbers.
pub fn normal(rng: &mut Rng) -> f64 {
    rng.normal(1 << 20) as f64 / f64::from(1 << 20)
}

/// 1 or -1.
pub fn sign(rng: &mut Rng) -> f64 {
    if rng.word() >> 63 == 0 { 1.0 } else { -1.0 }
}

/// At least 1, with a tail of exponent 4.
pub fn pareto_4(rng: &mut Rng) -> f64 {
    1.0 / uniform(rng).sqrt().sqrt()
}

/// At least 1, with a tail of exponent 4/3.
pub fn pareto_4_3(rng: &mut Rng) -> f64 {
    let root = uniform(rng).sqrt();
    1.0 / (root * root.sqrt())
}

/// e to a power between -8 and 8: (1 + x/1024)¹⁰²⁴, by squaring; within 3 % at the ends, 0.1 % within ± 1.4.
pub fn exp(x: f64) -> f64 {
    let mut power = 1.0 + x.clamp(-8.0, 8.0) / 1_024.0;
    for _ in 0..10 {
        power *= power;
    }
    power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_have_their_means() {
        let mut rng = Rng::new(5);
        let mean = |f: &mut dyn FnMut(&mut Rng) -> f64| {
            let mut rng = rng.clone();
            (0..200_000).map(|_| f(&mut rng)).sum::<f64>() / 200_000.0
        };
        assert!((mean(&mut uniform) - 0.5).abs() < 0.005);
        assert!(mean(&mut normal).abs() < 0.01);
        assert!((mean(&mut |r| normal(r).powi(2)) - 1.0).abs() < 0.01);
        assert!((mean(&mut pareto_4) - 4.0 / 3.0).abs() < 0.01);
        assert!(uniform(&mut rng) > 0.0);
    }

    #[test]
    fn the_exponential_is_near_the_library_s() {
        for tenths in -14..=14 {
            let x = f64::from(tenths) / 10.0;
            assert!((exp(x) / x.exp() - 1.0).abs() < 0.001, "{x}");
        }
    }

    #[test]
    fn a_symbol_and_a_purpose_have_a_stream_of_their_own() {
        let word = |symbol, purpose| stream(7, symbol, purpose).word();
        assert_eq!(word("AAPL", "noise"), word("AAPL", "noise"));
        assert_ne!(word("AAPL", "noise"), word("MSFT", "noise"));
        assert_ne!(word("AAPL", "noise"), word("AAPL", "value"));
    }
}
