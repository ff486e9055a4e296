package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// crictl answers the one question that `kind load` asks (inspecti), and
// `crictl images`, which helps a person who looks into a node.
func crictl(args []string) error {
	conn, err := grpc.NewClient("unix:///run/containerd/containerd.sock", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	images := runtimeapi.NewImageServiceClient(conn)
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", "  ")
	switch {
	case len(args) == 2 && args[0] == "inspecti":
		r, err := images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: args[1]}})
		if err != nil {
			return err
		}
		if r.Image == nil {
			return fmt.Errorf("no such image %q present", args[1])
		}
		return out.Encode(map[string]any{"status": map[string]any{"id": r.Image.Id, "repoTags": r.Image.RepoTags, "repoDigests": r.Image.RepoDigests, "size": r.Image.Size}})
	case len(args) == 1 && args[0] == "images":
		r, err := images.ListImages(ctx, &runtimeapi.ListImagesRequest{})
		if err != nil {
			return err
		}
		for _, i := range r.Images {
			fmt.Println(i.Id, i.RepoTags, i.Size)
		}
		return nil
	}
	return fmt.Errorf("this crictl knows only: inspecti IMAGE, images")
}
