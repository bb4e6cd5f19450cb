//! What may be written where a shape is wanted.

use crate::types::Dim;

/// A list of sizes: `[2, 3]`, `("seq", 64)`, `()`, `vec![dim, dim]`, `&dims`.
pub trait Shape {
    /// The sizes, major to minor.
    fn dims(self) -> Vec<Dim>;
}

impl Shape for () {
    fn dims(self) -> Vec<Dim> {
        Vec::new()
    }
}

impl<T: Into<Dim>, const N: usize> Shape for [T; N] {
    fn dims(self) -> Vec<Dim> {
        self.into_iter().map(Into::into).collect()
    }
}

impl<T: Into<Dim>> Shape for Vec<T> {
    fn dims(self) -> Vec<Dim> {
        self.into_iter().map(Into::into).collect()
    }
}

impl Shape for &[Dim] {
    fn dims(self) -> Vec<Dim> {
        self.to_vec()
    }
}

impl Shape for &Vec<Dim> {
    fn dims(self) -> Vec<Dim> {
        self.clone()
    }
}

macro_rules! tuple_shape {
    ($($T:ident $x:ident),+) => {
        impl<$($T: Into<Dim>),+> Shape for ($($T,)+) {
            fn dims(self) -> Vec<Dim> {
                let ($($x,)+) = self;
                vec![$($x.into()),+]
            }
        }
    };
}

tuple_shape!(A a);
tuple_shape!(A a, B b);
tuple_shape!(A a, B b, C c);
tuple_shape!(A a, B b, C c, D d);
tuple_shape!(A a, B b, C c, D d, E e);
tuple_shape!(A a, B b, C c, D d, E e, F f);
