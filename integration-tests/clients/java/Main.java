import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

/** Takes a step with one of the libraries: LIBRARY STEP PATH... A step that fails ends with code 1. */
public final class Main {
    /** What a library can do; each call on the same session. */
    interface Client extends AutoCloseable {
        void put(String local, String remote) throws Exception;

        void setTimes(String local, String remote) throws Exception;

        void rename(String from, String to) throws Exception;

        long size(String remote) throws Exception;

        void resume(String local, String remote) throws Exception;

        void mkdir(String remote) throws Exception;

        List<String> list(String remote) throws Exception;

        void get(String remote, String local) throws Exception;

        void remove(String remote) throws Exception;
    }

    static final String HOST = System.getenv("GATE_HOST");
    static final int PORT = Integer.parseInt(System.getenv("GATE_PORT"));
    static final String USER = System.getenv("GATE_USER");
    static final String KEY = System.getenv("GATE_KEY");
    static final String KNOWN_HOSTS = System.getenv("GATE_KNOWN_HOSTS");

    public static void main(String[] arguments) {
        int code = 0;
        try (Client client = connect(arguments[0])) {
            List<String> paths = List.of(arguments).subList(2, arguments.length);
            take(arguments[0], client, arguments[1], paths);
        } catch (Exception e) {
            for (Throwable cause = e; cause != null; cause = cause.getCause()) {
                System.err.println(cause);
            }
            code = 1;
        }
        // Threads of a library may still wait for something.
        System.exit(code);
    }

    private static Client connect(String library) throws Exception {
        return switch (library) {
            case "jsch" -> new WithJsch();
            case "sshj" -> new WithSshj();
            case "mina" -> new WithMina();
            default -> throw new IllegalArgumentException(library);
        };
    }

    private static void take(String library, Client client, String step, List<String> paths) throws Exception {
        switch (step) {
            case "put" -> client.put(paths.get(0), paths.get(1));
            case "put-with-times" -> {
                client.put(paths.get(0), paths.get(1));
                client.setTimes(paths.get(0), paths.get(1));
            }
            case "put-renamed" -> {
                client.put(paths.get(0), paths.get(1) + ".filepart");
                client.rename(paths.get(1) + ".filepart", paths.get(1));
            }
            case "put-and-stat" -> {
                client.put(paths.get(0), paths.get(1));
                System.out.println(client.size(paths.get(1)));
            }
            case "resume" -> client.resume(paths.get(0), paths.get(1));
            case "put-tree" -> putTree(client, Path.of(paths.get(0)), paths.get(1));
            case "put-at-once" -> putAtOnce(library, paths);
            case "list" -> client.list(paths.get(0)).forEach(System.out::println);
            case "get" -> client.get(paths.get(0), paths.get(1));
            case "remove" -> client.remove(paths.get(0));
            default -> throw new IllegalArgumentException(step);
        }
    }

    private static void putTree(Client client, Path local, String remote) throws Exception {
        List<Path> all;
        try (var walk = Files.walk(local)) {
            all = walk.sorted().toList();
        }
        for (Path path : all) {
            String below = local.relativize(path).toString();
            String there = below.isEmpty() ? remote : remote + "/" + below;
            if (Files.isDirectory(path)) {
                client.mkdir(there);
            } else {
                client.put(path.toString(), there);
            }
        }
    }

    /** One connection each. */
    private static void putAtOnce(String library, List<String> paths) throws Exception {
        var threads = Executors.newFixedThreadPool(4);
        List<Future<Void>> ends = new ArrayList<>();
        for (int at = 0; at + 1 < paths.size(); at += 2) {
            String local = paths.get(at);
            String remote = paths.get(at + 1);
            Callable<Void> one = () -> {
                try (Client own = connect(library)) {
                    own.put(local, remote);
                }
                return null;
            };
            ends.add(threads.submit(one));
        }
        for (Future<Void> end : ends) {
            end.get();
        }
    }

    /** When a local file was written, in seconds. */
    static long written(String local) throws IOException {
        return Files.getLastModifiedTime(Path.of(local)).toMillis() / 1000;
    }

    private Main() {}
}
