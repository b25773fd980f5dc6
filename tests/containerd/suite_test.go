// Runs containerd's own conformance suite for snapshotters against ours, over its socket.
//
// SNAPSHOTTER is a command that serves the snapshots service: SNAPSHOTTER DIRECTORY SOCKET.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	api "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/proxy"
	"github.com/containerd/containerd/v2/core/snapshots/testsuite"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

func start(ctx context.Context, root string) (snapshots.Snapshotter, func() error, error) {
	socket := filepath.Join(root, "snapshotter.sock")
	command := exec.Command(os.Getenv("SNAPSHOTTER"), root, socket)
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	if err := command.Start(); err != nil {
		return nil, nil, err
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if connection, err := net.Dial("unix", socket); err == nil {
			connection.Close()
			break
		}
		if time.Now().After(deadline) {
			command.Process.Kill()
			return nil, nil, fmt.Errorf("there is no %s after a minute", socket)
		}
	}
	client, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, nil, err
	}
	stop := func() error {
		client.Close()
		command.Process.Signal(syscall.SIGTERM)
		return command.Wait()
	}
	return proxy.NewSnapshotter(api.NewSnapshotsClient(client), "cvmfs-snapshotter"), stop, nil
}

func TestSnapshotter(t *testing.T) {
	// The name says what to expect: as with overlayfs, a directory of a lower layer cannot be renamed in place.
	testsuite.SnapshotterSuite(t, "overlayfs", start)
}
