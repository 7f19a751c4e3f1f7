//! The assignment door: `spinfer:experiment/assignment`.

use crate::AbRouter;
use crate::bindings::exports::spinfer::experiment::assignment as wit;
use crate::experiments::{Request, with};

impl wit::Guest for AbRouter {
    fn needed_headers() -> Vec<String> {
        with(|experiments| experiments.needed_headers().to_vec()).unwrap_or_default()
    }

    fn needs_body() -> bool {
        with(|experiments| experiments.needs_body()).unwrap_or(false)
    }

    fn assign(request: wit::Request) -> Result<wit::Assigned, wit::Refusal> {
        let headers: Vec<_> =
            request.headers.into_iter().map(|header| (header.index, header.value)).collect();
        let path = request.path_with_query;
        let request = Request { path: &path, headers: &headers, body: &request.body };
        let assigned = with(|experiments| {
            let assignment = experiments.assign(request)?;
            let (experiment, variant) = (assignment.experiment, assignment.variant);
            let shadows = assignment.shadows().map(|shadow| wit::Shadow {
                variant: shadow.name.clone(),
                component: shadow.component.clone(),
                path_with_query: experiment.path_of(shadow, &path),
            });
            Ok(wit::Assigned {
                experiment: experiment.name.clone(),
                variant: variant.name.clone(),
                component: variant.component.clone(),
                path_with_query: experiment.path_of(variant, &path),
                shadows: shadows.collect(),
            })
        });
        assigned
            .and_then(|assigned| assigned)
            .map_err(|refusal| wit::Refusal { status: refusal.status, message: refusal.message })
    }
}
