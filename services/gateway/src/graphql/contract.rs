//! The reference's contract, and what would break its clients.

use async_graphql::parser::{
    parse_schema,
    types::{FieldDefinition, InputValueDefinition, Type, TypeDefinition, TypeKind, TypeSystemDefinition},
};
use std::collections::BTreeMap;

const REFERENCE: &str = include_str!("reference.graphql");

fn types(sdl: &str) -> BTreeMap<String, TypeDefinition> {
    let definitions = parse_schema(sdl).unwrap().definitions.into_iter();
    let types = definitions.filter_map(|definition| match definition {
        TypeSystemDefinition::Type(kind) => Some((kind.node.name.node.to_string(), kind.node)),
        _ => None,
    });
    types.collect()
}

/// Whether all that is sent as `theirs` is taken as `ours`: ours may be null or left out where theirs may not.
fn takes(ours: &Type, theirs: &Type) -> bool {
    ours.base == theirs.base && (ours.nullable || !theirs.nullable)
}

/// What of their inputs is gone or asks for more, and what is asked for that they do not send.
fn inputs(
    path: &str,
    theirs: &[&InputValueDefinition],
    ours: &[&InputValueDefinition],
    found: &mut Vec<String>,
) {
    for their in theirs {
        let path = format!("{path}.{}", their.name.node);
        match ours.iter().find(|our| our.name.node == their.name.node) {
            None => found.push(format!("{path} is gone")),
            Some(our) if !takes(&our.ty.node, &their.ty.node) => {
                found.push(format!("{path} is a {}", our.ty.node));
            }
            Some(_) => {}
        }
    }
    for our in ours {
        let is_theirs = theirs.iter().any(|their| their.name.node == our.name.node);
        if !is_theirs && !our.ty.node.nullable && our.default_value.is_none() {
            found.push(format!("{path}.{} has to be sent", our.name.node));
        }
    }
}

fn outputs(path: &str, theirs: &[&FieldDefinition], ours: &[&FieldDefinition], found: &mut Vec<String>) {
    for their in theirs {
        let path = format!("{path}.{}", their.name.node);
        let Some(our) = ours.iter().find(|our| our.name.node == their.name.node) else {
            found.push(format!("{path} is gone"));
            continue;
        };
        // An answer may be surer than theirs.
        if !takes(&their.ty.node, &our.ty.node) {
            found.push(format!("{path} is a {}", our.ty.node));
        }
        let arguments = |field: &'_ FieldDefinition| -> Vec<InputValueDefinition> {
            field.arguments.iter().map(|argument| argument.node.clone()).collect()
        };
        let (theirs, ours) = (arguments(their), arguments(our));
        inputs(&path, &theirs.iter().collect::<Vec<_>>(), &ours.iter().collect::<Vec<_>>(), found);
    }
}

/// What in a schema breaks clients of the reference.
fn breaches(schema: &str) -> Vec<String> {
    let (theirs, ours, mut found) = (types(REFERENCE), types(schema), Vec::new());
    for (name, their) in &theirs {
        match (&their.kind, ours.get(name).map(|our| &our.kind)) {
            (TypeKind::Scalar, Some(TypeKind::Scalar)) => {}
            (TypeKind::Object(their), Some(TypeKind::Object(our))) => {
                let [their, our] = [their, our].map(|o| o.fields.iter().map(|f| &f.node).collect::<Vec<_>>());
                outputs(name, &their, &our, &mut found);
            }
            (TypeKind::InputObject(their), Some(TypeKind::InputObject(our))) => {
                let [their, our] = [their, our].map(|o| o.fields.iter().map(|f| &f.node).collect::<Vec<_>>());
                inputs(name, &their, &our, &mut found);
            }
            _ => found.push(format!("{name} is gone")),
        }
    }
    found
}

#[test]
fn clients_of_the_reference_find_all_that_they_rely_on() {
    assert_eq!(breaches(&super::sdl()), Vec::<String>::new());
    let theirs = types(REFERENCE);
    let fields = |name: &str| match &theirs[name].kind {
        TypeKind::Object(object) => object.fields.len(),
        _ => 0,
    };
    assert_eq!((theirs.len(), fields("Query"), fields("Mutation"), fields("Order")), (45, 15, 8, 13));
}

#[test]
fn what_would_break_them_is_found() {
    for (was, is, breach) in [
        ("getOrders: OrdersResponse!", "listOrders: OrdersResponse!", "Query.getOrders is gone"),
        ("getOrders: OrdersResponse!", "getOrders: OrdersResponse", "Query.getOrders is a OrdersResponse"),
        ("getOrders: ", "getOrders(first: Int!): ", "Query.getOrders.first has to be sent"),
        ("type Holding {", "type Position {", "Holding is gone"),
        ("avgFillPrice: Float!", "avgFillPrice: String!", "Order.avgFillPrice is a String!"),
        ("filledQuantity: Float!", "filled: Float!", "Order.filledQuantity is gone"),
        ("cancelOrder(orderId: String!)", "cancelOrder(id: String!)", "Mutation.cancelOrder.orderId is gone"),
        ("limit: Int = 8", "limit: Int!", "Query.searchStocks.limit is a Int!"),
        (
            "quantity: Float!\n  price: Float\n",
            "quantity: Float!\n  price: Float!\n",
            "CreateOrderRequest.price is a Float!",
        ),
        (
            "toAccountId: String!",
            "toAccountId: String!\n  why: String!",
            "TransferRequest.why has to be sent",
        ),
        ("input TransferRequest", "type TransferRequest", "TransferRequest is gone"),
        ("scalar Int64\n", "type Int64 { high: Int! }\n", "Int64 is gone"),
    ] {
        let changed = REFERENCE.replacen(was, is, 1);
        assert_ne!(changed, REFERENCE, "{was}");
        assert!(breaches(&changed).iter().any(|found| found == breach), "{breach}: {:?}", breaches(&changed));
    }
    // More is no breach: fields, arguments, inputs that may be left out, and what is taken without being sent.
    for (was, is) in [
        ("count: Int!", "count: Int!\n  more: Boolean!"),
        ("getOrders: ", "getOrders(first: Int, openOnly: Boolean! = false): "),
        ("quantity: Float!\n  price: Float\n", "quantity: Float\n  price: Float\n  accountId: String\n"),
        ("data: [Order!]\n", "data: [Order!]!\n"),
    ] {
        let changed = REFERENCE.replacen(was, is, 1);
        assert_ne!(changed, REFERENCE, "{was}");
        assert_eq!(breaches(&changed), Vec::<String>::new(), "{is}");
    }
}
