//! Which values the schema's input types surely take.

use async_graphql::{
    Name, Value,
    parser::{
        parse_schema,
        types::{BaseType, Type, TypeKind, TypeSystemDefinition},
    },
};
use std::collections::{BTreeMap, BTreeSet};

/// A field of an input object.
#[derive(Debug)]
struct Field {
    kind: Type,
    required: bool,
}

/// The input objects and enums of a schema.
#[derive(Debug, Default)]
pub struct Inputs {
    objects: BTreeMap<Name, BTreeMap<Name, Field>>,
    enums: BTreeMap<Name, BTreeSet<Name>>,
}

impl Inputs {
    /// Those of a schema in GraphQL's own language. A text that is no schema has none, and then nothing named by it fits.
    pub fn of(sdl: &str) -> Self {
        let mut inputs = Self::default();
        let Ok(schema) = parse_schema(sdl) else { return inputs };
        for definition in schema.definitions {
            let TypeSystemDefinition::Type(definition) = definition else { continue };
            let (name, kind) = (definition.node.name.node, definition.node.kind);
            match kind {
                // A directive may ask for more than the fields do (`@oneOf`).
                TypeKind::InputObject(object) if definition.node.directives.is_empty() => {
                    let fields = object.fields.into_iter().map(|field| {
                        let field = field.node;
                        let required = !field.ty.node.nullable && field.default_value.is_none();
                        (field.name.node, Field { kind: field.ty.node, required })
                    });
                    inputs.objects.insert(name, fields.collect());
                }
                TypeKind::Enum(values) => {
                    inputs.enums.insert(name, values.values.into_iter().map(|v| v.node.value.node).collect());
                }
                _ => {}
            }
        }
        inputs
    }

    /// Whether the validation would certainly take this value for this type; `false` says only that it has to look.
    pub fn fit(&self, kind: &Type, value: &Value) -> bool {
        match (&kind.base, value) {
            (_, Value::Null) => kind.nullable,
            (BaseType::List(kind), Value::List(items)) => items.iter().all(|item| self.fit(kind, item)),
            (BaseType::List(_), _) => false,
            (BaseType::Named(name), value) => self.named(name, value),
        }
    }

    fn named(&self, name: &Name, value: &Value) -> bool {
        match (name.as_str(), value) {
            ("String" | "ID" | "UUID" | "DateTime", Value::String(_))
            | ("Boolean", Value::Boolean(_))
            | ("Float", Value::Number(_)) => true,
            // Both, because the library's Int is signed or not by who registered it first.
            ("Int" | "Int64", Value::Number(number)) => number.is_i64() && number.is_u64(),
            (_, Value::Object(given)) => self.objects.get(name).is_some_and(|fields| {
                given.iter().all(|(name, value)| fields.get(name).is_some_and(|f| self.fit(&f.kind, value)))
                    && fields.iter().all(|(name, field)| !field.required || given.contains_key(name))
            }),
            (_, Value::Enum(value)) => self.enums.get(name).is_some_and(|values| values.contains(value)),
            (_, Value::String(value)) => {
                self.enums.get(name).is_some_and(|values| values.contains(value.as_str()))
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SDL: &str = "enum Side { BUY SELL } input Leg { side: Side! n: Int } \
                       input Order { symbol: String!, legs: [Leg!], ratio: Float! = 1.5, only: Boolean }";

    #[test]
    fn a_value_fits_only_where_nothing_about_it_is_in_doubt() {
        let inputs = Inputs::of(SDL);
        let fit = |kind: &str, value: serde_json::Value| {
            inputs.fit(&Type::new(kind).unwrap(), &Value::from_json(value).unwrap())
        };
        assert!(fit("String!", json!("a")) && fit("String", json!(null)) && fit("[Int!]", json!([1, 2])));
        assert!(fit("Side!", json!("BUY")) && fit("Float", json!(1)) && fit("ID", json!("x")));
        assert!(fit("Order!", json!({"symbol": "A", "legs": [{"side": "SELL", "n": null}], "only": true})));
        for (kind, value) in [
            ("String!", json!(null)),
            ("String", json!(1)),
            ("Int", json!(1.5)),
            ("Int", json!("1")),
            ("[Int!]", json!([null])),
            ("[Int]", json!(1)),
            ("Side", json!("HOLD")),
            ("Boolean", json!(0)),
            ("Order", json!({"legs": []})),
            ("Order", json!({"symbol": "A", "more": 1})),
            ("Order", json!({"symbol": "A", "ratio": null})),
            ("Order", json!({"symbol": "A", "legs": [{"n": 1}]})),
            ("Order", json!("A")),
            ("Unknown", json!({})),
        ] {
            assert!(!fit(kind, value.clone()), "{kind} {value}");
        }
        assert!(
            !Inputs::of("nonsense").fit(
                &Type::new("Order").unwrap(),
                &Value::Object(async_graphql::indexmap::IndexMap::default())
            )
        );
    }
}
