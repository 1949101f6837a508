//! The code that is generated: the enums that travel, the `Agent`, and the methods of its handles.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::Ident;

use crate::model::{Method, Model};
use crate::serde_impls::{Variant, tagged};

/// Everything, the user's own `impl` included.
pub(crate) fn expand(model: &Model) -> TokenStream {
    let Model { item, .. } = model;
    let messages = messages(model);
    let agent = agent(model);
    let handle = handle(model);
    quote! { #item #messages #agent #handle }
}

/// The names of what is generated.
fn named(model: &Model, what: &str) -> Ident {
    format_ident!("{}{what}", model.agent)
}

fn messages(model: &Model) -> TokenStream {
    let given = format_ident!("given");
    let asks = |methods: &[Method], what: &str| {
        let variants: Vec<_> = methods
            .iter()
            .map(|method| Variant {
                name: method.variant.clone(),
                tag: method.tag,
                fields: method.arguments.iter().map(|(name, kind)| (name, kind)).collect(),
            })
            .collect();
        let docs = format!("What can be said to a [`{}`]: a {what} for each method.", model.agent);
        let what = if what == "command" { "Command" } else { "Query" };
        tagged(&model.visibility, &named(model, what), &docs, &variants)
    };
    let gives = |methods: &[Method], what: &str| {
        let variants: Vec<_> = methods
            .iter()
            .map(|method| Variant {
                name: method.variant.clone(),
                tag: method.tag,
                fields: vec![(&given, &method.output)],
            })
            .collect();
        let docs = format!("What a [`{}`] gives back, for each method.", model.agent);
        tagged(&model.visibility, &named(model, what), &docs, &variants)
    };
    let (commands, replies) = (asks(&model.commands, "command"), gives(&model.commands, "Reply"));
    let (queries, answers) = (asks(&model.queries, "query"), gives(&model.queries, "Answer"));
    quote! { #commands #replies #queries #answers }
}

fn agent(model: &Model) -> TokenStream {
    let Model { agent, name, .. } = model;
    let (command, reply) = (named(model, "Command"), named(model, "Reply"));
    let (query, answer) = (named(model, "Query"), named(model, "Answer"));
    let version = model.version.as_ref().map(|version| quote!(const VERSION: u32 = #version;));
    let migrate = model.migrates.then(|| {
        quote! {
            fn migrate(from: u32, bytes: &[u8]) -> ::core::result::Result<Self, ::std::string::String> {
                #agent::migrate(from, bytes)
            }
        }
    });
    let version_min = model.version_min.as_ref().map(|version| quote!(const VERSION_MIN: u32 = #version;));
    let changes_retained =
        model.changes_retained.as_ref().map(|changes| quote!(const CHANGES_RETAINED: u32 = #changes;));
    let retained_by_version = model
        .retains_by_version
        .then(|| quote!(fn changes_retained(version: u32) -> u32 { #agent::changes_retained(version) }));
    let write_as = model.writes_as.then(|| {
        quote! {
            fn write_as(
                &self, version: u32,
            ) -> ::core::result::Result<::std::vec::Vec<u8>, ::std::string::String> {
                #agent::write_as(self, version)
            }
        }
    });
    let needed = model.commands.iter().map(|method| {
        let (variant, since) = (&method.variant, method.since);
        quote!(#command::#variant { .. } => #since)
    });
    let timeout = model.timeout.as_ref().map(|method| {
        let (name, context) = (&method.name, method.takes_context.then(|| quote!(context)));
        quote! {
            #[allow(unused_variables, reason = "not every timeout takes the context")]
            fn handle_timeout(&mut self, context: &mut ::dist_agent::AgentContext<'_>) {
                self.#name(#context)
            }
        }
    });
    let arms = |methods: &[Method], asks: &Ident, gives: &Ident| {
        let arms = methods.iter().map(|method| {
            let Method { name, variant, .. } = method;
            let arguments = method.arguments.iter().map(|(name, _)| name);
            // Names of our own: an argument may be called `context`, too.
            let bound: Vec<_> = (0..method.arguments.len()).map(|n| format_ident!("argument_{n}")).collect();
            let context = method.takes_context.then(|| quote!(context,));
            quote! {
                #asks::#variant { #(#arguments: #bound),* } => #gives::#variant { given: self.#name(#context #(#bound),*) }
            }
        });
        quote!(#(#arms),*)
    };
    let commands = arms(&model.commands, &command, &reply);
    let queries = arms(&model.queries, &query, &answer);
    quote! {
        #[allow(clippy::unit_arg, reason = "generated")]
        impl ::dist_agent::Agent for #agent {
            const TYPE: &'static str = #name;
            #version
            #version_min
            #changes_retained
            type Command = #command;
            type Reply = #reply;
            type Query = #query;
            type Answer = #answer;

            #[allow(unused_variables, reason = "not every handler takes the context")]
            fn handle_command(&mut self, context: &mut ::dist_agent::AgentContext<'_>, command: #command) -> #reply {
                match command { #commands }
            }

            #[allow(unused_variables, reason = "not every handler takes the context")]
            fn handle_query(&self, context: &::dist_agent::QueryContext<'_>, query: #query) -> #answer {
                match query { #queries }
            }

            fn version_needed(command: &#command) -> u32 {
                match command { #(#needed),* }
            }

            #timeout
            #migrate
            #write_as
            #retained_by_version
        }
    }
}

/// A trait with a method for each command and query, for the handles of this agent.
fn handle(model: &Model) -> TokenStream {
    let Model { agent, visibility, .. } = model;
    let handle = named(model, "Handle");
    let (command, reply) = (named(model, "Command"), named(model, "Reply"));
    let (query, answer) = (named(model, "Query"), named(model, "Answer"));
    let signature = |method: &Method, error: TokenStream| {
        let Method { name, output, .. } = method;
        let arguments = method.arguments.iter().map(|(name, kind)| quote!(#name: #kind));
        quote! {
            fn #name(
                &self, #(#arguments),*
            ) -> impl ::core::future::Future<Output = ::core::result::Result<#output, #error>> + ::core::marker::Send
        }
    };
    let command_error = || quote!(::dist_agent::AgentError);
    let query_error = || quote!(::dist_agent::AgentQueryError);
    let declared = |methods: &[Method], error: &dyn Fn() -> TokenStream| {
        let declared: Vec<_> = methods
            .iter()
            .map(|method| {
                let (docs, signature) = (&method.docs, signature(method, error()));
                quote!(#(#docs)* #signature;)
            })
            .collect();
        quote!(#(#declared)*)
    };
    let defined = |methods: &[Method],
                   error: &dyn Fn() -> TokenStream,
                   call: &str,
                   asks: &Ident,
                   gives: &Ident| {
        let wrong = format_ident!("wrong_{call}");
        let call = format_ident!("{call}");
        let single = methods.len() == 1;
        let defined: Vec<_> = methods
            .iter()
            .map(|method| {
                let (signature, variant) = (signature(method, error()), &method.variant);
                let arguments = method.arguments.iter().map(|(name, _)| name);
                // Of one variant there is no other.
                let other = (!single).then(|| {
                    quote!(_ => ::core::result::Result::Err(::dist_agent::__private::#wrong(self.id())))
                });
                quote! {
                    #signature {
                        async move {
                            match ::dist_agent::AgentHandle::#call(self, #asks::#variant { #(#arguments),* }).await? {
                                #gives::#variant { given } => ::core::result::Result::Ok(given),
                                #other
                            }
                        }
                    }
                }
            })
            .collect();
        quote!(#(#defined)*)
    };
    let declared_commands = declared(&model.commands, &command_error);
    let declared_queries = declared(&model.queries, &query_error);
    let commands = defined(&model.commands, &command_error, "command", &command, &reply);
    let queries = defined(&model.queries, &query_error, "query", &query, &answer);
    let docs = format!("The commands and queries of a [`{agent}`], as methods of its handles.");
    quote! {
        #[doc = #docs]
        #[allow(missing_docs, async_fn_in_trait, reason = "generated")]
        #visibility trait #handle {
            #declared_commands
            #declared_queries
        }

        #[allow(clippy::unit_arg, reason = "generated")]
        impl #handle for ::dist_agent::AgentHandle<#agent> {
            #commands
            #queries
        }
    }
}
