// The stargz snapshotter as a process with its default settings: stargz STATE SOCKET.
//
// Debian has its library and its client ctr-remote, but not this program, which does what upstream's
// containerd-stargz-grpc does.
package main

import (
	"context"
	"fmt"
	"net"
	"os"

	api "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/contrib/snapshotservice"
	"github.com/containerd/stargz-snapshotter/service"
	"google.golang.org/grpc"
)

func serve(state, socket string) error {
	snapshotter, err := service.NewStargzSnapshotterService(context.Background(), state, &service.Config{})
	if err != nil {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	api.RegisterSnapshotsServer(server, snapshotservice.FromSnapshotter(snapshotter))
	return server.Serve(listener)
}

func main() {
	if err := serve(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "stargz:", err)
		os.Exit(1)
	}
}
