//! Statistics as the literature defines them (Cont 2001, "Empirical properties of asset returns").

/// The part of the largest values that the Hill estimator looks at.
const HILL_PART: f64 = 0.05;

pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

pub fn variance(values: &[f64]) -> f64 {
    let mean = mean(values);
    values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len().max(1) as f64
}

/// Fourth standardised moment less 3.
pub fn excess_kurtosis(values: &[f64]) -> f64 {
    let (mean, variance) = (mean(values), variance(values));
    let fourth = values.iter().map(|v| (v - mean).powi(4)).sum::<f64>() / values.len().max(1) as f64;
    fourth / (variance * variance).max(f64::MIN_POSITIVE) - 3.0
}

/// Tail exponent of the magnitudes by Hill (1975), over the largest twentieth.
pub fn hill(values: &[f64]) -> f64 {
    let mut sizes: Vec<f64> = values.iter().map(|v| v.abs()).filter(|v| *v > 0.0).collect();
    sizes.sort_by(|a, b| b.total_cmp(a));
    let count = (values.len() as f64 * HILL_PART) as usize;
    if count == 0 || sizes.len() <= count {
        return f64::NAN;
    }
    let least = sizes[count];
    count as f64 / sizes[..count].iter().map(|v| (v / least).ln()).sum::<f64>()
}

/// Pearson's correlation.
pub fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let (mean_a, mean_b) = (mean(a), mean(b));
    let product = a.iter().zip(b).map(|(x, y)| (x - mean_a) * (y - mean_b)).sum::<f64>();
    let square = |v: &[f64], mean: f64| v.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
    product / (square(a, mean_a) * square(b, mean_b)).sqrt().max(f64::MIN_POSITIVE)
}

/// Autocorrelation at a lag, within each of several stretches: what lies over a night is no pair.
pub fn autocorrelation(stretches: &[Vec<f64>], lag: usize) -> f64 {
    let all: Vec<f64> = stretches.iter().flatten().copied().collect();
    let (mean, variance) = (mean(&all), variance(&all));
    let (mut sum, mut pairs) = (0.0, 0_usize);
    for stretch in stretches {
        for (a, b) in stretch.iter().zip(stretch.iter().skip(lag)) {
            sum += (a - mean) * (b - mean);
            pairs += 1;
        }
    }
    sum / pairs.max(1) as f64 / variance.max(f64::MIN_POSITIVE)
}

/// The exponent of `y ~ xᵇ` by least squares of the logarithms.
pub fn exponent(x: &[f64], y: &[f64]) -> f64 {
    let [x, y] = [x, y].map(|v| v.iter().map(|v| v.max(1e-9).ln()).collect::<Vec<f64>>());
    let (mean_x, mean_y) = (mean(&x), mean(&y));
    let product: f64 = x.iter().zip(&y).map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    product / x.iter().map(|x| (x - mean_x).powi(2)).sum::<f64>().max(f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::{normal, pareto_4, sign};
    use fafnir_rules::rng::Rng;

    #[test]
    fn known_distributions_have_their_figures() {
        let mut rng = Rng::new(11);
        let bell: Vec<f64> = (0..50_000).map(|_| normal(&mut rng)).collect();
        // The sum of twelve uniform numbers has -0.1.
        assert!((excess_kurtosis(&bell) + 0.1).abs() < 0.1);
        let tails: Vec<f64> = (0..50_000).map(|_| sign(&mut rng) * pareto_4(&mut rng)).collect();
        assert!((hill(&tails) - 4.0).abs() < 0.2, "{}", hill(&tails));
        let halves: Vec<f64> = bell.iter().zip(&tails).map(|(a, b)| a + b).collect();
        assert!(correlation(&bell, &bell) > 0.999 && correlation(&bell, &tails).abs() < 0.02);
        assert!(correlation(&bell, &halves) > 0.3);
        let mut walk = vec![0.0];
        for shake in &bell {
            walk.push(walk[walk.len() - 1] * 0.8 + shake);
        }
        assert!((autocorrelation(&[walk], 2) - 0.64).abs() < 0.03);
        assert!((exponent(&[1.0, 4.0, 9.0], &[2.0, 4.0, 6.0]) - 0.5).abs() < 1e-9);
    }
}
