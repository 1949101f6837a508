//! Enums whose variants have numbers on the wire that do not depend on their order.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Ident, Type, Visibility};

/// A variant: its name, its number, its fields.
pub(crate) struct Variant<'a> {
    pub(crate) name: Ident,
    pub(crate) tag: u32,
    pub(crate) fields: Vec<(&'a Ident, &'a Type)>,
}

/// An enum, encoded as a tuple of the tag and the fields.
pub(crate) fn tagged(
    visibility: &Visibility,
    name: &Ident,
    docs: &str,
    variants: &[Variant<'_>],
) -> TokenStream {
    let text = name.to_string();
    let definitions = variants.iter().map(|Variant { name, fields, .. }| {
        let (names, types): (Vec<_>, Vec<_>) = fields.iter().copied().unzip();
        quote!(#name { #(#names: #types),* })
    });
    let writes = variants.iter().map(|Variant { name, tag, fields }| {
        let names = fields.iter().map(|(name, _)| name);
        // Names of our own: a field may be called `serializer`, too.
        let bound: Vec<_> = (0..fields.len()).map(|n| format_ident!("field_{n}")).collect();
        let fields = quote!(&(#tag, #(#bound),*));
        quote!(Self::#name { #(#names: ref #bound),* } => __serde::Serialize::serialize(#fields, serializer))
    });
    let reads = variants.iter().map(|Variant { name: variant, tag, fields }| {
        let names = fields.iter().map(|(name, _)| name);
        quote! {
            #tag => ::core::result::Result::Ok(#name::#variant {
                #(#names: ::dist_agent::__private::field(&mut fields)?),*
            })
        }
    });
    let length = 1 + variants.iter().map(|variant| variant.fields.len()).max().unwrap_or(0);
    quote! {
        #[doc = #docs]
        #[allow(missing_docs, clippy::large_enum_variant, reason = "generated")]
        #visibility enum #name { #(#definitions),* }

        const _: () = {
            use ::dist_agent::__private::serde as __serde;

            impl __serde::Serialize for #name {
                #[allow(unused_variables, reason = "an agent may have no queries")]
                fn serialize<S: __serde::Serializer>(
                    &self,
                    serializer: S,
                ) -> ::core::result::Result<S::Ok, S::Error> {
                    // Of the value itself: a reference to an enum without variants cannot be matched without arms.
                    match *self { #(#writes),* }
                }
            }

            struct Fields;

            impl<'de> __serde::de::Visitor<'de> for Fields {
                type Value = #name;

                fn expecting(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                    f.write_str(#text)
                }

                fn visit_seq<A: __serde::de::SeqAccess<'de>>(
                    self,
                    mut fields: A,
                ) -> ::core::result::Result<#name, A::Error> {
                    let tag: u32 = ::dist_agent::__private::field(&mut fields)?;
                    match tag {
                        #(#reads,)*
                        unknown => ::core::result::Result::Err(::dist_agent::__private::unknown_tag(#text, unknown)),
                    }
                }
            }

            impl<'de> __serde::Deserialize<'de> for #name {
                fn deserialize<D: __serde::Deserializer<'de>>(
                    deserializer: D,
                ) -> ::core::result::Result<Self, D::Error> {
                    deserializer.deserialize_tuple(#length, Fields)
                }
            }
        };
    }
}
