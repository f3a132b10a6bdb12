# Run in the root of the checkout:
# docker buildx bake -f docker/docker-bake.hcl           both images
# REGISTRY=registry.example.com/team/ docker buildx bake -f docker/docker-bake.hcl gpu --push

variable "REGISTRY" {
  default = ""
}

variable "VERSION" {
  default = "0.1.0"
}

variable "RAY" {
  default = "2.60.0"
}

# pip options for torch in the CPU image, e.g. "--index-url URL" with the index of PyTorch's CPU builds.
variable "TORCH_ARGS" {
  default = ""
}

group "default" {
  targets = ["cpu", "gpu"]
}

target "base" {
  context    = "."
  dockerfile = "docker/Dockerfile"
  target     = "evoswarm"
  platforms  = ["linux/amd64"]
  labels = {
    "org.opencontainers.image.title"    = "evoswarm"
    "org.opencontainers.image.version"  = "${VERSION}"
    "org.opencontainers.image.licenses" = "Apache-2.0"
  }
}

target "cpu" {
  inherits = ["base"]
  args     = { BUILD = "cpu", TORCH_ARGS = "${TORCH_ARGS}" }
  tags     = ["${REGISTRY}evoswarm:${VERSION}-ray${RAY}-cpu"]
}

target "gpu" {
  inherits = ["base"]
  args     = { BUILD = "gpu" }
  tags     = ["${REGISTRY}evoswarm:${VERSION}-ray${RAY}-gpu"]
}
