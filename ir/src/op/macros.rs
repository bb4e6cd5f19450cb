//! `op_table!`: from rows to an op enum, its kinds and their facts. Data only, no op-specific code.

/// Declares an op enum, the enum of its kinds (no attributes) and their facts.
macro_rules! op_table {
    ($(#[$meta:meta])* $Op:ident, $(#[$kmeta:meta])* $Kind:ident { $( $(#[doc = $doc:literal])+
        $Name:ident { $($attr:ident: $Ty:ident),* } $text:literal $arity:ident($n:literal) $family:ident; )+ }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $Op { $( $(#[doc = $doc])+ $Name {
            $( #[doc = concat!("The `", stringify!($attr), "` attribute.")] $attr: $Ty ),* } ),+ }

        $(#[$kmeta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $Kind { $( $(#[doc = $doc])+ $Name ),+ }

        impl $Kind {
            /// Every kind, in table order.
            pub const ALL: &'static [$Kind] = &[$( $Kind::$Name ),+];

            /// The facts of this row.
            pub const fn info(self) -> &'static $crate::op::OpInfo {
                const ROWS: &[$crate::op::OpInfo] = &[$( $crate::op::OpInfo {
                    name: $text,
                    arity: $crate::op::Arity::$arity($n),
                    family: $crate::op::Family::$family,
                    attrs: &[$( (stringify!($attr), stringify!($Ty)) ),*],
                    doc: concat!($($doc),+),
                } ),+];
                &ROWS[self as usize]
            }

            /// The kind with this name in text.
            pub fn by_name(name: &str) -> Option<$Kind> {
                $Kind::ALL.iter().copied().find(|k| k.info().name == name)
            }
        }

        impl $Op {
            /// The row of this op.
            pub const fn kind(&self) -> $Kind { match self { $( $Op::$Name { .. } => $Kind::$Name ),+ } }

            /// The facts of this op's row.
            pub const fn info(&self) -> &'static $crate::op::OpInfo { self.kind().info() }

            /// Attributes in table order: printer, hash and e-graph leaves need no code per op.
            pub fn attrs(&self) -> Vec<$crate::op::Attr> {
                match self { $( $Op::$Name { $($attr),* } => vec![$( $crate::op::Attr::$Ty($attr.clone()) ),*] ),+ }
            }

            /// Adds the symbols of the sizes among its attributes to `out`, each once.
            pub fn collect_symbols(&self, out: &mut Vec<$crate::types::Symbol>) {
                match self { $( $Op::$Name { $($attr),* } => { $( $crate::op::Symbolic::collect_symbols($attr, out); )* } ),+ }
            }

            /// The functions that its attributes name.
            pub fn functions(&self) -> Vec<&$crate::op::Name> {
                let named: &[Option<&$crate::op::Name>] =
                    match self { $( $Op::$Name { $($attr),* } => &[$( $crate::op::Symbolic::name($attr) ),*] ),+ };
                named.iter().flatten().copied().collect()
            }

            /// Inverse of `kind` and `attrs`; `None` if the attributes do not fit the row.
            pub fn from_parts(kind: $Kind, attrs: &[$crate::op::Attr]) -> Option<$Op> {
                match kind { $( $Kind::$Name => {
                    let [$( $crate::op::Attr::$Ty($attr) ),*] = attrs else { return None };
                    Some($Op::$Name { $($attr: $attr.clone()),* })
                } ),+ }
            }
        }
    };
}
pub(crate) use op_table;
