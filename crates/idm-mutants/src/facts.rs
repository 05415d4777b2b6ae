//! Types of expressions, as far as the declarations of a crate show them by name.

use std::collections::BTreeSet;
use syn::visit::{self, Visit};
use syn::{Fields, File, Ident, ImplItemFn, ItemFn, ItemStruct, ReturnType, Signature, Type};

/// Methods of the standard library that return a truth value.
const BOOLEAN: &[&str] = &[
    "all",
    "any",
    "contains",
    "contains_key",
    "ends_with",
    "is_empty",
    "is_err",
    "is_none",
    "is_none_or",
    "is_ok",
    "is_some",
    "is_some_and",
    "is_zero",
    "starts_with",
];
/// Methods of the standard library that return no value.
const UNIT: &[&str] = &[
    "append",
    "clear",
    "copy_from_slice",
    "extend",
    "extend_from_slice",
    "fill",
    "for_each",
    "push",
    "push_back",
    "push_front",
    "resize",
    "retain",
    "reverse",
    "sort",
    "sort_by",
    "sort_by_key",
    "sort_unstable",
    "sort_unstable_by",
    "sort_unstable_by_key",
    "swap",
    "truncate",
];

/// Names of functions and fields whose type is known.
#[derive(Default)]
pub(crate) struct Facts {
    boolean_functions: BTreeSet<String>,
    unit_functions: BTreeSet<String>,
    boolean_fields: BTreeSet<String>,
    /// Fields of other types: the type of a name that occurs with two types is not known.
    other_fields: BTreeSet<String>,
}

impl Facts {
    /// Collects the declarations of `files`.
    pub(crate) fn of<'a>(files: impl IntoIterator<Item = &'a File>) -> Facts {
        let mut facts = Facts::default();
        facts.boolean_functions.extend(BOOLEAN.iter().map(|name| name.to_string()));
        facts.unit_functions.extend(UNIT.iter().map(|name| name.to_string()));
        for file in files {
            facts.visit_file(file);
        }
        facts
    }

    /// Whether a function with this name returns a truth value.
    pub(crate) fn is_boolean_function(&self, name: &Ident) -> bool {
        self.boolean_functions.contains(&name.to_string())
    }

    /// Whether a field with this name is a truth value.
    pub(crate) fn is_boolean_field(&self, name: &Ident) -> bool {
        let name = name.to_string();
        self.boolean_fields.contains(&name) && !self.other_fields.contains(&name)
    }

    /// Whether a function with this name returns no value.
    pub(crate) fn is_unit_function(&self, name: &Ident) -> bool {
        self.unit_functions.contains(&name.to_string())
    }

    fn note(&mut self, signature: &Signature) {
        let name = signature.ident.to_string();
        match &signature.output {
            ReturnType::Default => {
                self.unit_functions.insert(name);
            }
            ReturnType::Type(_, of) if is_named(of, "bool") => {
                self.boolean_functions.insert(name);
            }
            ReturnType::Type(..) => {}
        }
    }
}

/// Whether a type is written as `name`, without a path.
pub(crate) fn is_named(of: &Type, name: &str) -> bool {
    matches!(of, Type::Path(path) if path.path.is_ident(name))
}

impl<'ast> Visit<'ast> for Facts {
    fn visit_item_fn(&mut self, function: &'ast ItemFn) {
        self.note(&function.sig);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        self.note(&function.sig);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_item_struct(&mut self, item: &'ast ItemStruct) {
        if let Fields::Named(fields) = &item.fields {
            for field in &fields.named {
                let name = field.ident.as_ref().map(Ident::to_string);
                let is_boolean = is_named(&field.ty, "bool");
                let known =
                    if is_boolean { &mut self.boolean_fields } else { &mut self.other_fields };
                known.extend(name);
            }
        }
    }
}
