"""Whether a Kubernetes manifest can hold its run. Uses the rules of KubeRay, Kueue and Kubernetes, but none of them."""
