// The client of java.net.http, run by: java JavaNetHttp.java URI COMPRESSING_URI

import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.WebSocket;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

public class JavaNetHttp {
    static final int PATIENCE = 20; // seconds
    static String uri;

    /** A connection whose messages, pongs and end can be waited for. */
    static class Link implements WebSocket.Listener {
        final LinkedBlockingQueue<Object> messages = new LinkedBlockingQueue<>();
        final LinkedBlockingQueue<Object> pongs = new LinkedBlockingQueue<>();
        final LinkedBlockingQueue<String> end = new LinkedBlockingQueue<>();
        final StringBuilder text = new StringBuilder();
        ByteBuffer bytes = ByteBuffer.allocate(1 << 21);
        WebSocket socket;

        Link(String path, String... protocols) throws Exception {
            WebSocket.Builder builder = HttpClient.newHttpClient().newWebSocketBuilder();
            if (protocols.length > 0)
                builder.subprotocols(
                    protocols[0], Arrays.copyOfRange(protocols, 1, protocols.length));
            socket = builder.buildAsync(URI.create(uri + path), this).get(PATIENCE, TimeUnit.SECONDS);
        }

        public CompletionStage<?> onText(WebSocket socket, CharSequence data, boolean last) {
            text.append(data);
            if (last) {
                messages.add(text.toString());
                text.setLength(0);
            }
            socket.request(1);
            return null;
        }

        public CompletionStage<?> onBinary(WebSocket socket, ByteBuffer data, boolean last) {
            bytes.put(data);
            if (last) {
                messages.add(Arrays.copyOf(bytes.array(), bytes.position()));
                bytes.clear();
            }
            socket.request(1);
            return null;
        }

        public CompletionStage<?> onPong(WebSocket socket, ByteBuffer data) {
            pongs.add(data.remaining());
            socket.request(1);
            return null;
        }

        public CompletionStage<?> onClose(WebSocket socket, int code, String reason) {
            end.add(code + " " + reason);
            return null;
        }

        public void onError(WebSocket socket, Throwable error) {
            end.add(error.toString());
            messages.add(error);
        }

        void send(Object message) throws Exception {
            if (message instanceof String) socket.sendText((String) message, true).get();
            else socket.sendBinary(ByteBuffer.wrap((byte[]) message), true).get();
        }
    }

    static <T> T next(LinkedBlockingQueue<T> queue) throws Exception {
        T value = queue.poll(PATIENCE, TimeUnit.SECONDS);
        if (value == null) throw new Exception("nothing came in time");
        return value;
    }

    static void expect(Object got, String wanted) throws Exception {
        if (!wanted.equals(got)) throw new Exception("got " + got + ", not " + wanted);
    }

    static void echoes(Object... messages) throws Exception {
        Link link = new Link("/echo");
        for (Object message : messages) {
            link.send(message);
            Object echo = next(link.messages);
            boolean same = message instanceof String
                ? message.equals(echo)
                : echo instanceof byte[] && Arrays.equals((byte[]) message, (byte[]) echo);
            if (!same) throw new Exception("something else came back");
        }
        link.socket.sendClose(1000, "").get();
    }

    static byte[] pattern(int length) {
        byte[] made = new byte[length];
        for (int index = 0; index < length; index++) made[index] = (byte) (index % 251);
        return made;
    }

    static void print(String json) throws Exception {
        System.out.write((json + "\n").getBytes(StandardCharsets.UTF_8));
        System.out.flush();
    }

    static void check(String name, Callable<Boolean> act) throws Exception {
        try {
            String result = act.call() ? "yes" : "absent";
            print("{\"check\": \"" + name + "\", \"result\": \"" + result + "\"}");
        } catch (Exception error) {
            String note = String.valueOf(error.getMessage()).replace('"', '\'').replace('\\', '/');
            print("{\"check\": \"" + name + "\", \"result\": \"no\", \"note\": \"" + note + "\"}");
        }
    }

    public static void main(String[] arguments) throws Exception {
        uri = arguments[0];
        print("{\"version\": \"" + System.getProperty("java.version") + "\"}");
        check("text", () -> { echoes("Gr\u00fc\u00dfe, \u4e16\u754c \ud83c\udf0d"); return true; });
        check("binary", () -> { echoes(pattern(256)); return true; });
        check("empty", () -> { echoes("", new byte[0]); return true; });
        check("64k", () -> { echoes("\u00e4".repeat(32768), pattern(65536)); return true; });
        check("1m", () -> { echoes(pattern(1048576)); return true; });
        check("fragments-to", () -> {
            expect(next(new Link("/fragments").messages), "one, two, three");
            return true;
        });
        check("fragments-from", () -> {
            Link link = new Link("/joined");
            link.socket.sendText("one, ", false).get();
            link.socket.sendText("two, ", false).get();
            link.socket.sendText("three", true).get();
            expect(next(link.messages), "fragments: one, two, three");
            return true;
        });
        check("pings-to", () -> {
            expect(next(new Link("/ping").messages), "answered");
            return true;
        });
        check("pings-from", () -> {
            Link link = new Link("/echo");
            link.socket.sendPing(ByteBuffer.wrap(new byte[] {1})).get();
            return next(link.pongs).equals(1);
        });
        check("close-to", () -> {
            expect(next(new Link("/close").end), "4001 Gr\u00f6\u00dfe");
            return true;
        });
        check("close-from", () -> {
            Link link = new Link("/closed");
            link.socket.sendClose(4002, "\u00dcbung").get();
            next(link.end);
            expect(next(new Link("/report").messages), "4002 \u00dcbung");
            return true;
        });
        check("subprotocol", () -> {
            expect(new Link("/echo", "chat.v9", "chat.v2").socket.getSubprotocol(), "chat.v2");
            return true;
        });
        check("compression", () -> false);
        System.exit(0);
    }
}
