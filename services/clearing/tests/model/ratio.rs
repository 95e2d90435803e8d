//! Exact fractions.

/// A fraction in its lowest terms, its denominator positive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ratio {
    numerator: i128,
    denominator: i128,
}

impl Ratio {
    pub fn new(numerator: i128, denominator: i128) -> Self {
        assert!(denominator > 0, "a denominator is positive");
        let (mut a, mut b) = (numerator.abs().max(1), denominator);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        if numerator == 0 {
            return Self { numerator: 0, denominator: 1 };
        }
        Self { numerator: numerator / a, denominator: denominator / a }
    }

    pub fn whole(n: i128) -> Self {
        Self::new(n, 1)
    }

    pub fn plus(self, other: Self) -> Self {
        let product = |a: i128, b: i128| a.checked_mul(b).expect("within 128 bits");
        let left = product(self.numerator, other.denominator);
        let right = product(other.numerator, self.denominator);
        Self::new(
            left.checked_add(right).expect("within 128 bits"),
            product(self.denominator, other.denominator),
        )
    }

    pub fn times(self, other: Self) -> Self {
        // Crosswise first, so that the products stay small.
        let one = Self::new(self.numerator, other.denominator);
        let two = Self::new(other.numerator, self.denominator);
        let product = |a: i128, b: i128| a.checked_mul(b).expect("within 128 bits");
        Self::new(product(one.numerator, two.numerator), product(one.denominator, two.denominator))
    }

    /// The whole number at or below it.
    pub fn down(self) -> i128 {
        self.numerator.div_euclid(self.denominator)
    }

    /// The whole number at or above it.
    pub fn up(self) -> i128 {
        -(-self.numerator).div_euclid(self.denominator)
    }
}

#[test]
fn a_ratio_is_exact_and_rounds_both_ways() {
    let third = Ratio::new(2, 6);
    assert_eq!(third.plus(third).plus(third), Ratio::whole(1));
    assert_eq!((third.down(), third.up()), (0, 1));
    assert_eq!(third.times(Ratio::new(-9, 2)), Ratio::new(-3, 2));
    assert_eq!((Ratio::new(-3, 2).down(), Ratio::new(-3, 2).up()), (-2, -1));
    assert_eq!(Ratio::new(0, 7), Ratio::whole(0));
}
